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
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.grid import half, load
from benchmarks.detection.measure import OPTIMIZERS
from benchmarks.detection.score import Fit, Row, grown, label, lost, split
from benchmarks.detection.train import LEARNED
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.exploding_through_time import ExplodingThroughTime
from vgaudit.rules.vanishing_gradient import VanishingGradient
from vgaudit.rules.vanishing_through_time import VanishingThroughTime

LOST, GROWN = -1, 1
GATED = ("lstm", "gru", "gated-cell")
PLAIN = ("cell", "rnn-tanh", "rnn-relu")
OTHERWISE = ("VG107", "VG202", "VG203")
SMALL = VanishingThroughTime().small_step

MANY = ExplodingThroughTime().long
RULES = (
    VanishingGradient(),
    VanishingThroughTime(),
    ExplodingGradient(),
    ExplodingThroughTime(),
)
THRESHOLDS = {
    ("VG108", "gated", "sgd"): "gated_sgd_error",
    ("VG108", "gated", "adam"): "gated_adam_error",
    ("VG108", "sigmoid", "sgd"): "sigmoid_sgd_error",
    ("VG108", "sigmoid", "adam"): "sigmoid_adam_error",
    ("VG108", "plain", "sgd"): "plain_sgd_error",
    ("VG108", "plain", "adam"): "plain_adam_error",
    ("VG204", "fewer steps", "sgd"): "error",
    ("VG204", "many steps", "sgd"): "error",
    ("VG204", "fewer steps", "adam"): "adam_error",
    ("VG204", "many steps", "adam"): "adam_long_error",
}
"""Rule, kind and optimizer → the threshold that such nets are judged by."""


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
                if _asked(row, optimizer):
                    name = row["ours"]["features"]["limits"][optimizer][rule]
                    names.setdefault(name, []).append((row, figure(row)))
            for name, mine in sorted(names.items()):
                yield _kind((rule, name, optimizer), mine, sign)
        for rule, groups, sign in (("VG108", CELLS, LOST), ("VG204", LENGTHS, GROWN)):
            for name, belongs in groups.items():
                lags = [(row, lag) for row in rows for lag in _lags(row)]
                mine = [(r, x.hi if sign < 0 else x.lo) for r, x in lags if belongs(x)]
                yield _kind((rule, name, optimizer), mine, sign)


def _asked(row: Row, optimizer: str) -> bool:
    """Tells whether VG101 or VG201 has to speak of a net if it is sick.

    Not where it reads a sequence, nor where a rule without kinds of nets speaks.
    """
    features, found = row["ours"]["features"], row["ours"]["findings"][optimizer]
    if features["through_time"] or features["attenuation"] is None:
        return False
    return all(code not in OTHERWISE or level != "error" for code, level, _ in found)


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


def shipped(kind: Kind) -> float | None:
    """Returns the limit that vgaudit ships; None where it calls no such net sick."""
    rules = {r.code: r for r in RULES}
    if kind.rule in ("VG101", "VG201"):
        return float(getattr(rules[kind.rule], kind.name))
    name = THRESHOLDS.get((kind.rule, kind.name, kind.optimizer))
    return None if name is None else float(getattr(rules[kind.rule], name))


def errors(kind: Kind, limit: float) -> int:
    """Returns the misses and false alarms of a limit on a kind."""
    sign = LOST if kind.rule in ("VG101", "VG108") else GROWN
    missed = sum(sign * x < sign * limit for x in kind.sick)
    return missed + sum(sign * x >= sign * limit for x in kind.well)


def left_out(rows: Sequence[Row], part: Callable[[Row], Hashable]) -> int:
    """Returns the errors of limits on models that they were not fitted on.

    Each part of the models is judged by what is fitted on the others; a kind that
    these have no limit for, by what is shipped.
    """
    found = 0
    for name in sorted({part(row) for row in rows}, key=str):
        others = [row for row in rows if part(row) != name]
        fits = {_words(kind): kind.fit for kind in kinds(others)}
        for kind in kinds([row for row in rows if part(row) == name]):
            fit = fits.get(_words(kind))
            limit = fit.limit if fit else shipped(kind)
            found += len(kind.sick) if limit is None else errors(kind, limit)
    return found


def disagreeing(kind: Kind) -> int:
    """Returns how many nets have another label than the one nearest in figure.

    Of two that are as near, half a count each would be fair; the upper one counts.
    """
    figures = [(x, True) for x in kind.sick] + [(x, False) for x in kind.well]
    known = sorted(pair for pair in figures if math.isfinite(pair[0]))
    found = 0
    for place, (x, sick) in enumerate(known):
        beside = known[max(0, place - 1) : place] + known[place + 1 : place + 2]
        if beside:
            nearest = min(beside, key=lambda pair: (abs(pair[0] - x), -pair[0]))
            found += nearest[1] is not sick
    return found


def least(disagreements: int, total: int) -> float:
    """Returns the errors that no rule on the same figures can go below, on average.

    Cover and Hart 1967, “Nearest neighbor pattern classification”: with many samples
    the nearest neighbour errs at most 2·e·(1 − e) where the best rule errs e.
    """
    share = min(0.5, disagreements / total) if total else 0.0
    return total * (1.0 - math.sqrt(1.0 - 2.0 * share)) / 2.0


def _words(kind: Kind) -> tuple[str, str, str]:
    return kind.rule, kind.name, kind.optimizer


def table(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    """Yields the cells of each kind: what is shipped, its gap, and its errors."""
    for kind in kinds(rows):
        limit, f = shipped(kind), kind.fit
        yield (
            kind.rule,
            kind.name.removesuffix("_error").replace("_", " "),
            kind.optimizer,
            "–" if limit is None else f"{limit:g}",
            "–" if f is None else f"{f.lo:.2f} … {f.hi:.2f}",
            str(errors(kind, math.copysign(math.inf, -1) if limit is None else limit)),
            "–" if f is None else str(f.errors),
            f"{len(kind.sick)} / {len(kind.well)}",
        )


def bounds(rows: Sequence[Row]) -> Iterator[str]:
    """Yields for each optimizer how many errors limits make, and any rule must make."""
    for optimizer in OPTIMIZERS:
        own = [kind for kind in kinds(rows) if kind.optimizer == optimizer]
        apart = sum(map(disagreeing, own))
        total = sum(len(kind.sick) + len(kind.well) for kind in own)
        made = sum(errors(k, x) for k in own if (x := shipped(k)) is not None)
        yield (
            f"{optimizer}, {len(rows):,} models: {apart} of {total:,} differ from the "
            f"one nearest to them, so no rule on these figures makes fewer than "
            f"{least(apart, total):.0f} errors; the limits make {made}\n"
        )


def main() -> None:
    """Prints what stands in the table of the page, and how good limits can be."""
    text = Path(__file__).with_name("results.jsonl").read_text()
    every = [json.loads(line) for line in text.splitlines()]
    rows = [row for row in every if half(row["name"]) != "report"]
    for cells in table(rows):
        sys.stdout.write("  ".join(cells) + "\n")
    families = {spec.name: spec.family for spec in load()}
    tenths = left_out(rows, lambda row: zlib.crc32(row["name"].encode()) % 10)
    family = left_out(rows, lambda row: families[row["name"]])
    asked = sum(len(kind.sick) + len(kind.well) for kind in kinds(rows))
    sys.stdout.write(
        f"errors in {asked:,} judgements by limits fitted without: a tenth of the "
        f"models {tenths}, a family {family}\n"
    )
    for given in (rows, every):
        sys.stdout.writelines(bounds(given))


if __name__ == "__main__":
    main()
