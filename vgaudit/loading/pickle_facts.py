"""What a pickle would do, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vgaudit.errors import CannotLoad

SAFE_OPCODES = (
    "GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET "
    "BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING BINPERSID BINGET "
    "LONG_BINGET BINPUT LONG_BINPUT LONG1 PROTO STOP"
)
TORCH_OPCODES = frozenset(SAFE_OPCODES.split())
"""Opcodes that ``torch.load(weights_only=True)`` understands."""

Names = dict[str, None]
"""Names in the order they were met."""


class MalformedPickle(CannotLoad):
    """A pickle that is cut off, breaks its own rules, or is nested too deep."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global, by the name under which the pickle asks for it."""

    full: str


@dataclass(slots=True, eq=False)
class Node:
    """A value built from others.

    Attributes:
        kind: ``tuple``, ``list``, ``dict``, or the name that was called.
        items: members of a tuple or list, keys of a dict.
        depth: of nesting, as far as known when it was filled.
    """

    kind: str
    items: list[Any]
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Storage:
    """A tensor's storage that the pickle asks for: its class and its elements."""

    kind: str
    numel: int


@dataclass(slots=True)
class PickleFacts:
    """What one pickle would do.

    Attributes:
        globals: names it asks for.
        created: names it makes an empty object of, to be filled with a state.
        called: names it calls with arguments.
        opcodes: kinds of opcodes met.
        protocol: as stated; 0 where it is not.
        persistent: kinds of what it keeps outside itself, ``storage`` for torch.
        storages: by key.
        tensors: shapes of the tensors it rebuilds, in order.
        root: description of the value that comes out.
    """

    globals: Names = field(default_factory=dict)
    created: Names = field(default_factory=dict)
    called: Names = field(default_factory=dict)
    opcodes: set[str] = field(default_factory=set)
    protocol: int = 0
    persistent: set[str] = field(default_factory=set)
    storages: dict[str, Storage] = field(default_factory=dict)
    tensors: list[tuple[int, ...]] = field(default_factory=list)
    root: Any = None

    @property
    def foreign_opcodes(self) -> set[str]:
        """Opcodes that torch's safe reader does not know."""
        return self.opcodes - TORCH_OPCODES

    @property
    def root_kind(self) -> str:
        """What comes out: ``dict``, the name of a class, or a type of constant."""
        if isinstance(self.root, Node):
            return self.root.kind
        return type(self.root).__name__

    @property
    def root_keys(self) -> tuple[str, ...]:
        """Keys of the dict that comes out, those that are texts."""
        if self.root_kind not in ("dict", "collections.OrderedDict"):
            return ()
        return tuple(key for key in self.root.items if isinstance(key, str))
