"""A module that came out of a pickle, before anything recurses into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vgaudit.errors import CannotLoad
from vgaudit.loading.tensors import plain_tensor
from vgaudit.loading.wording import shorten

MAX_LEVELS = 100

TABLES = (
    ("_parameters", nn.Parameter),
    ("_buffers", Tensor),
    ("_modules", nn.Module),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A module and its path from the root."""

    path: str
    module: nn.Module
    above: frozenset[int]


def check_tree(root: nn.Module, place: str) -> list[str]:
    """Checks every module, and puts plain tensors in place; returns notes.

    Raises:
        CannotLoad: a module is not restored, holds itself, or holds a tensor
            that nothing can compute with.
    """
    notes: dict[str, None] = {}
    for found in walk(root, place):
        where = f"{place}: {shorten(found.path) or type(root).__name__}"
        check_tables(found.module, where)
        check_names(found.module, where)
        for note in make_plain(found.module, where):
            notes[note] = None
    return list(notes)


def walk(root: nn.Module, place: str) -> Iterator[Place]:
    """Yields each module once, without recursion.

    Raises:
        CannotLoad: nested too deep, or within itself.
    """
    waiting = [Place("", root, frozenset())]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if id(current.module) in current.above:
            raise hostile(f"{place}: {shorten(current.path)} contains itself")
        if len(current.above) > MAX_LEVELS:
            raise hostile(f"{place}: modules are nested too deep: over {MAX_LEVELS}")
        if id(current.module) in seen:
            continue
        seen.add(id(current.module))
        yield current
        above = current.above | {id(current.module)}
        prefix = f"{current.path}." if current.path else ""
        children = vars(current.module)["_modules"]
        waiting += [
            Place(f"{prefix}{name}", child, above)
            for name, child in children.items()
            if child is not None
        ]


def check_tables(module: nn.Module, where: str) -> None:
    """Refuses a module whose parameters, buffers or children are something else."""
    for table, kind in TABLES:
        entries = vars(module).get(table)
        whole = isinstance(entries, dict) and all(
            isinstance(name, str) and (value is None or isinstance(value, kind))
            for name, value in entries.items()
        )
        if not whole:
            raise hostile(f"{where} is not restored: its {table} are missing or wrong")


def check_names(module: nn.Module, where: str) -> None:
    """Refuses an attribute without a proper name, or that hides a method."""
    for name in vars(module):
        if not isinstance(name, str):
            raise hostile(f"{where} is not restored: an attribute has no name")
        if callable(getattr(nn.Module, name, None)):
            raise hostile(f"{where}: the attribute {shorten(name)} hides a method")


def make_plain(module: nn.Module, where: str) -> Iterator[str]:
    """Puts plain tensors into a module; yields notes on what was changed."""
    for table in ("_parameters", "_buffers"):
        entries: dict[str, Any] = vars(module)[table]
        for name, value in entries.items():
            if value is None:
                continue
            tensor, note = plain_tensor(name, value.detach(), where)
            if note:
                trains = value.requires_grad
                is_parameter = table == "_parameters"
                entries[name] = nn.Parameter(tensor, trains) if is_parameter else tensor
                yield note


def state_of(root: nn.Module, place: str) -> Mapping[str, Any]:
    """Returns the state_dict of a module that came out of a pickle.

    Raises:
        CannotLoad: the hooks that it was pickled with fail.
    """
    try:
        state: Mapping[str, Any] = root.state_dict()
    except Exception as error:
        raise hostile(
            f"{place}: its state_dict() fails: {type(error).__name__}"
        ) from error
    return state


def hostile(message: str) -> CannotLoad:
    """Returns the error for a module that no honest program wrote."""
    return CannotLoad(
        message, hint="save the state_dict and give --arch, or get the file again"
    )
