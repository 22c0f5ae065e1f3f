"""The dataflow of a model, as ``vgaudit inspect --graph`` shows it."""

from __future__ import annotations

import ntpath
from collections.abc import Iterator

from vgaudit.errors import CannotLoad
from vgaudit.flow import Structure, StructureRow
from vgaudit.plain import to_json, visible
from vgaudit.rules.wording import count, names
from vgaudit.typed import Mismatch, typed

MARKS = {True: "│", False: "┆"}
"""A layer on the trunk, and one on a branch."""


def render(structure: Structure, *, form: str = "text") -> str:
    """Returns one line for each weight layer and activation, in forward order.

    Args:
        structure: what the worker found.
        form: ``text`` or ``json``.
    """
    if form == "json":
        return to_json(structure, indent=1) + "\n"
    return "\n".join(_lines(structure)) + "\n"


def parse(record: object) -> Structure:
    """Returns the structure that a worker sent as plain values.

    Raises:
        CannotLoad: it is no structure.
    """
    try:
        return typed(Structure, record)
    except Mismatch as error:
        raise CannotLoad(f"the worker sent no structure: {error}") from error


def _lines(structure: Structure) -> Iterator[str]:
    rows = structure.rows
    wide = max((len(visible(row.path)) for row in rows), default=0)
    kind = max((len(visible(row.type)) for row in rows), default=0)
    yield (
        f"{count(structure.weight_layers, 'weight layer')} on the longest path, "
        f"{count(structure.cut_nodes, 'cut node')}, "
        f"{count(structure.branches, 'branch')}"
    )
    yield f"{MARKS[True]} on the trunk, {MARKS[False]} beside it; depth from the output"
    yield ""
    for row in rows:
        yield _line(row, wide, kind)
    if structure.unused:
        yield ""
        yield f"not connected: {names(structure.unused)}"
    for item in structure.not_measured:
        yield f"not measured: {visible(item.path)}: {visible(item.reason)}"


def _line(row: StructureRow, wide: int, kind: int) -> str:
    depth = "" if row.depth is None else str(row.depth)
    numbers = f"{row.parameters:,}" if row.parameters else ""
    at = f"{ntpath.basename(row.source.file)}:{row.source.line}" if row.source else ""
    cells = (
        MARKS[row.trunk],
        visible(row.path).ljust(wide),
        visible(row.type).ljust(kind),
        depth.rjust(4),
        numbers.rjust(12),
        visible(at),
    )
    return "  ".join(cells).rstrip()
