"""``.csv`` files: one row a sample, one column the label."""

from __future__ import annotations

import csv
import itertools
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vgaudit.data.batches import Skips
from vgaudit.data.guesses import LABELS_GUESSED
from vgaudit.data.sources.content import Content, Source
from vgaudit.data.sources.local import regular_file
from vgaudit.data.sources.rows import Rows
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

LABELS = ("label", "target", "y", "class", "labels", "targets", "species")
"""Headings of the label column, upper or lower case; else the last column is it."""

_DELIMITERS = ",;\t|"
_MAX_NOTED = 20


@dataclass(slots=True)
class _Table:
    """The columns while they are read: features row by row, labels as text."""

    name: str
    header: list[str]
    label: int
    features: array[float] = field(default_factory=lambda: array("d"))
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    skips: Skips = field(default_factory=Skips)
    empty: int = 0

    def add(self, line: int, cells: list[str]) -> None:
        if len(cells) != len(self.header):
            raise CannotLoad(
                f"{self.name}, line {line}: {len(cells)} cells, and the header has "
                f"{len(self.header)}"
            )
        if any(not cell.strip() for cell in cells):
            self.empty += 1
            if self.empty <= _MAX_NOTED:
                column = next(i for i, cell in enumerate(cells) if not cell.strip())
                what = f"column '{visible(self.header[column])}' is empty"
                self.skips.add(f"line {line}", what)
            return
        for column, cell in enumerate(cells):
            if column != self.label:
                self.features.append(self._number(line, column, cell))
        self.labels.append(cells[self.label].strip())
        self.lines.append(line)

    def _number(self, line: int, column: int, cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            raise CannotLoad(
                f"{self.name}, line {line}: column '{visible(self.header[column])}' "
                f"holds text: '{visible(cell, length=40)}'",
                hint="encode it as numbers, or leave the column out",
            ) from None


def open_csv(spec: str, seed: int) -> Content:
    """Returns the rows of a CSV file.

    Commas, semicolons, tabs and bars separate cells. A text label column becomes
    classes in the order of the alphabet. Rows with an empty cell are skipped.

    Raises:
        CannotLoad: no rows, a row of another length, text where a number
            belongs, or the file is no text.
    """
    path = regular_file(spec)
    name = visible(path.name)
    try:
        table, notes = _read(path, name)
    except UnicodeDecodeError:
        raise CannotLoad(f"{name} is not UTF-8 text", hint="save it as UTF-8") from None
    except csv.Error as error:
        raise CannotLoad(f"{name} is not a CSV file: {visible(str(error))}") from None
    if not table.labels:
        what = "only rows with empty cells" if table.empty else "a header and no rows"
        raise CannotLoad(f"{name} has {what}")
    width = len(table.header) - 1
    features = np.frombuffer(table.features).reshape(-1, width).astype(np.float32)
    labels, said = _labels(table)
    if table.empty > _MAX_NOTED:
        table.skips.add("further lines", f"{table.empty - _MAX_NOTED} with empty cells")
    return Content(
        samples=Rows({"": features}, labels),
        arrays=True,
        notes=(*notes, *said),
        skips=table.skips,
    )


def _read(path: Path, name: str) -> tuple[_Table, tuple[str, ...]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline(65_536)
        delimiter = max(_DELIMITERS, key=first.count)
        stream.seek(0)
        rows = _numbered(csv.reader(stream, delimiter=delimiter))
        line, header = next(rows, (0, []))
        if not header:
            raise CannotLoad(f"{name} holds no cells")
        notes: tuple[str, ...] = ()
        if all(_is_number(cell) for cell in header):
            rows = itertools.chain([(line, header)], rows)
            header = [str(number) for number in range(1, len(header) + 1)]
            notes = ("no header: columns are numbered from 1",)
        if len(header) < 2:
            raise CannotLoad(
                f"{name} has the single column '{visible(header[0])}'",
                hint="a label and at least one number are needed",
            )
        label, said = _label_column(header)
        table = _Table(name, header, label)
        for line, cells in rows:
            table.add(line, cells)
    return table, (*notes, said)


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, with the line each one ends on."""
    for cells in reader:
        if cells:
            yield reader.line_num, cells  # type: ignore[attr-defined]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label_column(header: list[str]) -> tuple[int, str]:
    lower = [cell.strip().lower() for cell in header]
    for name in LABELS:
        if name in lower:
            column = lower.index(name)
            return column, f"labels are in column '{visible(header[column])}'"
    last = visible(header[-1])
    return len(header) - 1, f"{LABELS_GUESSED}, '{last}'"


def _labels(table: _Table) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns labels as whole numbers, as floats, or as classes of texts."""
    numeric = [_is_number(text) for text in table.labels]
    heading = visible(table.header[table.label])
    if all(numeric):
        values = np.array([float(text) for text in table.labels])
        whole = all(math.isfinite(v) and v == int(v) for v in values.tolist())
        as_written = all("." not in t and "e" not in t.lower() for t in table.labels)
        labels = values.astype(np.int64 if whole and as_written else np.float32)
        one = len(set(table.labels)) == 1 and labels.dtype == np.int64
        return labels, (f"all labels are {visible(table.labels[0])}",) if one else ()
    if any(numeric):
        row = numeric.index(False)
        raise CannotLoad(
            f"{table.name}, line {table.lines[row]}: column '{heading}' holds text: "
            f"'{visible(table.labels[row], length=40)}'",
            hint="labels are all numbers or all texts",
        )
    names = sorted(set(table.labels))
    if len(names) == len(table.labels) > 2:
        raise CannotLoad(
            f"{table.name}, line {table.lines[0]}: column '{heading}' holds text: "
            f"'{visible(table.labels[0], length=40)}', another in each row",
            hint=f"name the label column {LABELS[0]!r}, and encode texts as numbers",
        )
    numbers = {name: number for number, name in enumerate(names)}
    told = ", ".join(f"{visible(name, length=20)}={n}" for name, n in numbers.items())
    note = f"{len(names)} classes in column '{heading}': {visible(told, length=200)}"
    return np.array([numbers[text] for text in table.labels]), (note,)


SOURCE = Source(
    "FILE.csv", lambda spec: spec.lower().endswith((".csv", ".tsv")), open_csv
)
