"""The values that a pickle builds, as descriptions; nothing of it is made or called."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from vgaudit.loading.pickle_facts import Node, PickleFacts
from vgaudit.loading.pickle_scan import Machine, scan


@dataclass(slots=True, eq=False)
class Filled(Node):
    """A value built from others, with what a plain survey forgets.

    Attributes:
        values: of a dict, in the order of its keys, which are ``items``.
        state: what an object would be restored from; None where it has none.
    """

    values: list[Any] = field(default_factory=list)
    state: Any = None

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """Keys and values of a dict."""
        return list(zip(self.items, self.values, strict=True))


MAX_OPCODES = 40_000_000
"""A checkpoint of 70 billion parameters and Adam's averages, by 64 ranks, has 10⁷."""


class Recorder(Machine):
    """The stack machine of a pickle that keeps values and states."""

    node = Filled
    most = MAX_OPCODES

    def fill(self, items: list[Any]) -> None:
        """Adds keys and values, alternating, to the dict on top of the stack."""
        if len(items) % 2:
            raise ValueError("a key without a value")
        super().fill(items)
        target = self.stack[-1]
        if isinstance(target, Filled):
            target.values.extend(items[1::2])

    def build(self) -> None:
        """Gives the state on top to the object below it."""
        state = self.stack[-1]
        super().build()
        target = self.stack[-1]
        if isinstance(target, Filled):
            target.state = state


def described(data: bytes) -> PickleFacts:
    """Returns what a pickle would do; values in ``root`` are ``Filled``.

    Raises:
        MalformedPickle: it cannot be followed.
    """
    return scan(io.BytesIO(data), len(data), Recorder())
