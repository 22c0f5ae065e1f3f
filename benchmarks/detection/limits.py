"""Limits by the kind of net: what the models say that limits are fitted on.

    python benchmarks/detection/limits.py

For each threshold of VG101, VG108, VG201 and VG204 the nets that are judged by it, and
the limit that makes the fewest errors on them. Well is here also what learns only in
the longer run: an error says that a net does not learn.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.grid import half
from benchmarks.detection.measure import OPTIMIZERS
from benchmarks.detection.score import Fit, Row, grown, label, lost, split
from benchmarks.detection.train import LEARNED

LOST, GROWN = -1, 1
GATED = ("lstm", "gru", "gated-cell")
PLAIN = ("cell", "rnn-tanh", "rnn-relu")
SMALL = -0.7
"""Decades a step below which the weights of a plain cell are simply small."""

MANY = 20
"""Steps from which a sequence has many."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What a recurrent layer loses at its longest lag: an interval, in decades."""

    kind: str
    steps: int
    lo: float
    hi: float

    @property
    def small(self) -> bool:
        """Its weights are simply small."""
        return (self.lo + self.hi) / 2 < SMALL * self.steps


CELLS: dict[str, Callable[[Lag], bool]] = {
    "gated": lambda lag: lag.kind in GATED,
    "sigmoid": lambda lag: lag.kind == "sigmoid-cell",
    "plain": lambda lag: lag.kind in PLAIN and not lag.small,
    "plain, small weights": lambda lag: lag.kind in PLAIN and lag.small,
}
LENGTHS: dict[str, Callable[[Lag], bool]] = {
    "fewer steps": lambda lag: lag.steps + 1 < MANY,
    "many steps": lambda lag: lag.steps + 1 >= MANY,
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The figures of one kind of net under one optimizer.

    Attributes:
        rule: which judges by them. name: of the kind. optimizer: of the training.
        sick, well: decades, those of the sick that look healthiest first and those of
            the well that look sickest.
        fit: the limit between them; None where one of them is empty.
    """

    rule: str
    name: str
    optimizer: str
    sick: tuple[float, ...]
    well: tuple[float, ...]
    fit: Fit | None


def kinds(rows: Sequence[Row]) -> Iterator[Kind]:
    """Yields what is known of every kind of net under every optimizer."""
    for optimizer in OPTIMIZERS:
        for rule, figure, sign in (("VG101", lost, LOST), ("VG201", grown, GROWN)):
            names: dict[str, list[tuple[Row, float]]] = {}
            for row in rows:
                features = row["ours"]["features"]
                if not features["through_time"] and features["attenuation"] is not None:
                    name = features["limits"][optimizer][rule]
                    names.setdefault(name, []).append((row, figure(row)))
            for name, mine in sorted(names.items()):
                yield _kind((rule, name, optimizer), mine, sign)
        for rule, groups, sign in (("VG108", CELLS, LOST), ("VG204", LENGTHS, GROWN)):
            for name, belongs in groups.items():
                lags = [(row, lag) for row in rows for lag in _lags(row)]
                mine = [(r, x.hi if sign < 0 else x.lo) for r, x in lags if belongs(x)]
                yield _kind((rule, name, optimizer), mine, sign)


def _kind(
    words: tuple[str, str, str], mine: Sequence[tuple[Row, float]], sign: int
) -> Kind:
    rule, name, optimizer = words
    # What grows and stays at chance is labelled vanishing where units have rails.
    groups = ("vanishing",) if sign == LOST else ("exploding", "vanishing")
    rest = [(row, x) for row, x in mine if x * sign > 0 and math.isfinite(x)]
    sick = [x for row, x in rest if label(row, optimizer) in groups]
    well = [x for row, x in mine if learns(row, optimizer)]
    return Kind(
        rule=rule,
        name=name,
        optimizer=optimizer,
        sick=tuple(sorted(sick, key=lambda x: sign * x)),
        well=tuple(sorted(well, key=lambda x: -sign * x)),
        fit=split(sick, well, sign),
    )


def _lags(row: Row) -> Iterator[Lag]:
    for figures in row["ours"]["features"]["through_time"]:
        yield Lag(*figures)


def learns(row: Row, optimizer: str) -> bool:
    """Tells whether a net learns, be it in the longer run."""
    truth = row["oracle"][optimizer]
    late = truth["label"] == "unclear" and (truth["longer"] or 0.0) >= LEARNED
    return truth["label"] == "healthy" or late


def said(kind: Kind) -> str:
    """Returns one line on a kind."""
    limit = "no limit"
    if kind.fit is not None:
        f = kind.fit
        limit = f"{f.limit:g} ({f.lo:g} … {f.hi:g}), {f.errors} errors"
    sick, well = (
        f"{len(x)} {word} from {', '.join(f'{v:.2f}' for v in x[:4]) or '–'}"
        for x, word in ((kind.sick, "sick"), (kind.well, "well"))
    )
    return f"{kind.rule} {kind.name}, {kind.optimizer}: {limit}; {sick}; {well}"


def main() -> None:
    """Prints one line a kind and optimizer."""
    text = Path(__file__).with_name("results.jsonl").read_text()
    rows = [
        row
        for row in map(json.loads, text.splitlines())
        if half(row["name"]) != "report"
    ]
    for kind in kinds(rows):
        sys.stdout.write(said(kind) + "\n")


if __name__ == "__main__":
    main()
