"""Lets the reference show the section `Example:` of a docstring as code, as it does `Examples:`."""

import griffe


class Examples(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
