"""A family's members by name; what needs TensorFlow is imported only when it is used."""

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any


class Registry(MutableMapping[str, Any]):
    """The members of one family, such as the losses: the only place that knows them.

    A member is given as it is, or as the text `module` or `module:attribute`, which is imported
    when the member is first asked for. Looking whether a name is there imports nothing.

    Args:
        members: By the names that users write.

    Example:
        >>> losses = Registry({"dist": "tfdistill.losses.dist:Dist"})
        >>> losses["dist"](temperature=2.0)
    """

    def __init__(self, members: dict[str, object]):
        self._members = dict(members)

    def __getitem__(self, name: str) -> Any:
        member = self._members[name]
        return imported(member) if isinstance(member, str) else member

    def __setitem__(self, name: str, member: object) -> None:
        self._members[name] = member

    def __delitem__(self, name: str) -> None:
        del self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def imported(place: str) -> Any:
    """Return the module, or its attribute, that `module` or `module:attribute` names."""
    module, _, attribute = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
