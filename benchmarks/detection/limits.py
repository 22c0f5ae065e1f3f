"""Limits of nets that read a sequence, by the kind of their cells.

    python benchmarks/detection/limits.py

For each kind of cell and each optimizer the limit of VG108 that makes the fewest
errors on the models that limits are fitted on. Well is here also what learns only in
the longer run: an error says that a net does not learn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.grid import half
from benchmarks.detection.score import Fit, Row, label, split
from benchmarks.detection.train import LEARNED

GATED = ("lstm", "gru", "gated-cell")
SIGMOID = ("sigmoid-cell",)
PLAIN = ("cell", "rnn-tanh", "rnn-relu")
SMALL = -0.7
"""Decades a step below which the weights of a plain cell are simply small."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What a net loses at its longest lag: an interval, in decades."""

    kind: str
    steps: int
    lo: float
    hi: float

    @property
    def small(self) -> bool:
        """Its weights are simply small."""
        return (self.lo + self.hi) / 2 < SMALL * self.steps


KINDS: dict[str, Callable[[Lag], bool]] = {
    "gated": lambda lag: lag.kind in GATED,
    "sigmoid": lambda lag: lag.kind in SIGMOID,
    "plain": lambda lag: lag.kind in PLAIN and not lag.small,
    "plain, small weights": lambda lag: lag.kind in PLAIN and lag.small,
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The figures of one kind of cell under one optimizer.

    Attributes:
        name: of the kind. optimizer: under which they are sick or well.
        sick, well: decades at the longest lag.
        fit: the limit between them; None where one of them is empty.
    """

    name: str
    optimizer: str
    sick: tuple[float, ...]
    well: tuple[float, ...]
    fit: Fit | None


def kinds(rows: Sequence[Row]) -> Iterator[Kind]:
    """Yields the limit of every kind under every optimizer."""
    for name, belongs in KINDS.items():
        for optimizer in ("sgd", "adam"):
            mine = [(row, lag) for row in rows for lag in lags(row) if belongs(lag)]
            sick = [x.hi for r, x in mine if label(r, optimizer) == "vanishing"]
            well = [x.hi for r, x in mine if learns(r, optimizer)]
            yield Kind(
                name=name,
                optimizer=optimizer,
                sick=tuple(sorted(sick)),
                well=tuple(sorted(well)),
                fit=split(sick, well, -1),
            )


def lags(row: Row) -> Iterator[Lag]:
    """Yields what the recurrent layers of a net lose."""
    for figures in row["ours"]["features"]["through_time"]:
        yield Lag(*figures)


def learns(row: Row, optimizer: str) -> bool:
    """Tells whether a net learns, be it in the longer run."""
    truth = row["oracle"][optimizer]
    longer = truth["longer"] or 0.0
    late = truth["label"] == "unclear" and longer >= LEARNED
    return truth["label"] == "healthy" or late


def main() -> None:
    """Prints one line a kind and optimizer."""
    text = Path(__file__).with_name("results.jsonl").read_text()
    rows = [r for r in map(json.loads, text.splitlines()) if half(r["name"]) == "fit"]
    for kind in kinds(rows):
        counts = f"{len(kind.sick)} sick, {len(kind.well)} well"
        limit = "no limit"
        if kind.fit is not None:
            f = kind.fit
            limit = f"{f.limit:g} ({f.lo:g} … {f.hi:g}), {f.errors} errors"
        sys.stdout.write(f"{kind.name}, {kind.optimizer}: {limit}; {counts}\n")


if __name__ == "__main__":
    main()
