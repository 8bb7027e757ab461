"""Words that a field may be: named once, beside its type, for the check and for the JSON Schema."""

import functools
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tfdistill.utils import checks


@dataclass(frozen=True, eq=False)
class OneOf:
    """The words that a text may be, written as `Annotated[str, OneOf(words)]`.

    Args:
        words: All of them, as a registry; or a function that returns them.
        pattern: A regular expression of more, where they are too many to list.
        shown: Returns what people are shown, where that is not all words.

    Example:
        >>> optimizer: Annotated[str, OneOf(("sgd", "adam"))] = "adam"
    """

    words: Iterable[str] | Callable[[], Iterable[str]]
    pattern: str = ""
    shown: Callable[[], Iterable[str]] | None = None

    @property
    def listed(self) -> list[str]:
        """All words that are not said by the pattern."""
        return list(self.words() if callable(self.words) else self.words)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON Schema of the field, its words added to those of text."""
        found: dict[str, Any] = handler(core_schema)
        words: dict[str, Any] = {"enum": self.listed}
        if self.pattern:
            words = {"anyOf": [words, {"pattern": f"^(?:{self.pattern})$"}]}
        for each in found.get("anyOf", [found]):  # one for each type that the field may have
            if each["type"] == "string":
                each |= words
        return found


def check_words(config: Any, where: str) -> None:
    """Raise at a field of a configuration that is text and none of the words that it may be.

    Args:
        config: An instance of a dataclass.
        where: Where it stands, as `training`, for the message.

    Raises:
        UsageError: The message lists the words.
    """
    kind: Any = type(config)
    for name, words in words_of(kind).items():
        value = getattr(config, name)
        if isinstance(value, str) and not words.pattern:
            checks.one_of(f"{where}.{name}", value, words.listed)


@functools.cache
def words_of(cls: Any) -> dict[str, OneOf]:
    """Return the fields of a dataclass that have a choice of words, by name."""
    hints = typing.get_type_hints(cls, include_extras=True).items()
    found = {name: getattr(hint, "__metadata__", [None])[0] for name, hint in hints}
    return {name: words for name, words in found.items() if isinstance(words, OneOf)}
