"""Dataclasses as plain values that cross to another rank, and back."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

_PLAIN = (type(None), bool, int, float, str, Tensor)
_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset)


class Records:
    """Knows the dataclasses that may cross, and makes no others.

    Args:
        kinds: the dataclasses.
    """

    def __init__(self, *kinds: type) -> None:
        self._kinds: dict[str, Any] = {kind.__name__: kind for kind in kinds}
        self._containers = {kind.__name__: kind for kind in _CONTAINERS}

    def plain(self, value: Any) -> Any:
        """Returns a value as nested pairs of a kind and what is in it.

        Functions do not cross: None comes out in their place.

        Raises:
            TypeError: a value of a kind that may not cross.
        """
        if isinstance(value, _PLAIN):
            return value
        kind = type(value)
        if kind in _CONTAINERS:
            return kind.__name__, [self.plain(item) for item in value]
        if isinstance(value, dict):
            pairs = [[self.plain(k), self.plain(v)] for k, v in value.items()]
            return "dict", pairs
        if is_dataclass(kind) and self._kinds.get(kind.__name__) is kind:
            names = [field.name for field in fields(kind)]
            return kind.__name__, [self.plain(getattr(value, name)) for name in names]
        if callable(value):
            return None
        raise TypeError(f"{kind.__name__} does not cross to another rank")

    def built(self, value: Any) -> Any:
        """Returns what ``plain`` took."""
        if isinstance(value, _PLAIN):
            return value
        name, inside = value
        if name == "dict":
            return {self.built(key): self.built(item) for key, item in inside}
        items = [self.built(item) for item in inside]
        if name in self._containers:
            return self._containers[name](items)
        kind = self._kinds[name]
        return kind(**{f.name: v for f, v in zip(fields(kind), items, strict=True)})
