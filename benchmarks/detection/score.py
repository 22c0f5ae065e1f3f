"""From stored results to rates: pure arithmetic on plain data, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Row = dict[str, Any]
Judge = Callable[[Row, str], "Said"]

GROUPS = ("vanishing", "exploding", "dead")
CODES = {
    "vanishing": ("VG101", "VG103", "VG108"),
    "exploding": ("VG107", "VG201", "VG202", "VG203", "VG204"),
    "dead": ("VG103", "VG302"),
}
ANY = (
    "VG101", "VG103", "VG106", "VG107", "VG108",
    "VG201", "VG202", "VG203", "VG204", "VG301", "VG302",
)  # fmt: skip
Z = 1.959964
_ONE_FIGURE = frozenset({"VG101", "VG108", "VG201", "VG202", "VG204", "VG302"})


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a tool says of a model: layers by group; a group may be unknown to it.

    Attributes:
        flags: layers it names for each group that it flags.
        knows: groups that it has a rule for.
        anything: whether it raises any alarm at all.
    """

    flags: dict[str, tuple[str, ...]]
    knows: frozenset[str]
    anything: bool


@dataclass(kw_only=True)
class Tally:
    """Hits and errors of one tool on one group."""

    hits: int = 0
    misses: int = 0
    alarms: int = 0
    quiet: int = 0
    missed: list[str] = field(default_factory=list)
    alarmed: list[str] = field(default_factory=list)

    @property
    def recall(self) -> tuple[int, int]:
        """Sick models that are flagged, of all."""
        return self.hits, self.hits + self.misses

    @property
    def precision(self) -> tuple[int, int]:
        """Flagged models that are sick, of all that are flagged."""
        return self.hits, self.hits + self.alarms

    @property
    def false_alarms(self) -> tuple[int, int]:
        """Healthy models that are flagged, of all that are healthy."""
        return self.alarms, self.alarms + self.quiet


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share.

    Wilson 1927, “Probable inference, the law of succession, and statistical
    inference”.
    """
    if not total:
        return 0.0, 1.0
    share, square = hits / total, Z * Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    spread *= Z / (1 + square / total)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def label(row: Row, kind: str) -> str:
    """Returns the oracle's label."""
    return str(row["oracle"][kind]["label"])


def tally(rows: Iterable[Row], kind: str, group: str, judge: Judge) -> Tally | None:
    """Returns the counts of one tool; None where it has no rule for the group.

    Sick are the models that the oracle puts into the group (``any``: into one of
    the three), healthy those that train under this optimizer. A model that is sick
    in another way is in neither, and an unclear one is left out.
    """
    counts = Tally()
    for row in rows:
        said, truth = judge(row, kind), label(row, kind)
        if group != "any" and group not in said.knows:
            return None
        flagged = said.anything if group == "any" else group in said.flags
        sick = truth in GROUPS if group == "any" else truth == group
        if sick:
            counts.hits += flagged
            counts.misses += not flagged
            if not flagged:
                counts.missed.append(f"{row['name']} ({kind})")
        elif truth == "healthy":
            counts.alarms += flagged
            counts.quiet += not flagged
            if flagged:
                counts.alarmed.append(f"{row['name']} ({kind})")
    return counts


def ours(
    levels: Sequence[str],
    limits: dict[str, dict[str, float]] | None,
    rules: Sequence[str] = ANY,
) -> Judge:
    """Returns vgaudit as a judge: with its defaults, or with fitted limits.

    Args:
        levels: levels of findings that count as an alarm.
        limits: fitted thresholds, by optimizer and by name.
        rules: codes that are listened to.
    """

    def judge(row: Row, kind: str) -> Said:
        raised = row["ours"]["findings"][kind]
        found = [f for f in raised if f[1] in levels and f[0] in rules]
        if limits is not None:
            found = _refitted(row, found, kind, limits[kind])
        flags: dict[str, list[str]] = {}
        for code, _, layers in found:
            for group, codes in CODES.items():
                if code in codes:
                    flags.setdefault(group, []).extend(layers)
        anything = any(code in rules for code, _, _ in found)
        kept = {g: tuple(dict.fromkeys(names)) for g, names in flags.items()}
        return Said(flags=kept, knows=frozenset(GROUPS), anything=anything)

    return judge


def _refitted(
    row: Row, found: list[Any], kind: str, limits: dict[str, float]
) -> list[Any]:
    """Replaces the findings whose thresholds were fitted; their layers stay."""
    layers = {f[0]: f[2] for k in ("sgd", kind) for f in row["ours"]["findings"][k]}
    kept = [f for f in found if f[0] not in _ONE_FIGURE]
    if lost(row) < limits["vanishing"]:
        kept.append(["VG101", "error", layers.get("VG101", [])])
    if grown(row) >= limits["exploding"]:
        kept.append(["VG201", "error", layers.get("VG201", [])])
    if row["ours"]["features"]["dead"] >= limits["dead"]:
        kept.append(["VG302", "error", layers.get("VG302", [])])
    return kept


def group_of(code: str) -> str:
    """Returns the group that a rule speaks of; ``any`` where it is of several."""
    groups = [group for group, codes in CODES.items() if code in codes]
    return groups[0] if len(groups) == 1 else "any"


def peer(name: str) -> Judge:
    """Returns a peer as a judge."""

    def judge(row: Row, kind: str) -> Said:
        flags = row["peers"][name][kind]
        raised = {g: tuple(names) for g, names in flags.items() if names}
        known = frozenset(g for g in GROUPS if flags.get(g, ()) is not None)
        return Said(flags=raised, knows=known, anything=bool(raised))

    return judge


def lost(row: Row) -> float:
    """Returns what VG101 compares: the upper end of the worst decay, in decades."""
    f = row["ours"]["features"]
    ends = [x for x in (f["hi"], f["branch_hi"]) if x is not None and abs(x) < 1e9]
    return min(ends, default=0.0)


def grown(row: Row) -> float:
    """Returns what VG201 compares: the lower end of the growth, in decades."""
    lo = row["ours"]["features"]["lo"]
    return -math.inf if lo is None or abs(lo) >= 1e9 else float(lo)


def dead_share(row: Row) -> float:
    """Returns what VG302 compares: the largest share of dead units."""
    return float(row["ours"]["features"]["dead"])


SCORES: dict[str, tuple[Callable[[Row], float], int]] = {
    "vanishing": (lost, -1),
    "exploding": (grown, +1),
    "dead": (dead_share, +1),
}
DEFAULTS = {
    "sgd": {"vanishing": -3.6, "exploding": 3.65, "dead": 0.9},
    "adam": {"vanishing": -8.1, "exploding": 13.0, "dead": 0.9},
}
"""The thresholds for an error that vgaudit ships, where one figure says it."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A threshold with its margin.

    Attributes:
        limit: the fitted value.
        lo, hi: between these, every threshold makes as few errors.
        errors: misses and false alarms on the half it was fitted on.
        sick, healthy: models it was fitted on.
    """

    limit: float
    lo: float
    hi: float
    errors: int
    sick: int
    healthy: int


def fit(rows: Sequence[Row], kind: str, group: str) -> Fit | None:
    """Returns the threshold with the fewest misses and false alarms together.

    Of equally good ones, the middle of the widest gap between two models. None
    where a class is empty.
    """
    score, sign = SCORES[group]
    sick = [score(r) for r in rows if label(r, kind) == group]
    well = [score(r) for r in rows if label(r, kind) == "healthy"]
    return split(sick, well, sign)


def split(sick: Sequence[float], well: Sequence[float], sign: int) -> Fit | None:
    """Returns the limit between sick and well with the fewest errors.

    Args:
        sick: figures of the sick. well: of the others.
        sign: 1 where the sick have the larger figures, else −1.
    """
    bad = [sign * x for x in sick if math.isfinite(x)]
    good = [sign * x for x in well if math.isfinite(x)]
    if not bad or not good:
        return None
    gaps = list(pairwise(sorted({*bad, *good})))

    def errors(gap: tuple[float, float]) -> int:
        limit = sum(gap) / 2
        return sum(x < limit for x in bad) + sum(x >= limit for x in good)

    fewest = min(map(errors, gaps))
    best = max((g for g in gaps if errors(g) == fewest), key=lambda g: g[1] - g[0])
    ends = sorted((sign * best[0], sign * best[1]))
    return Fit(
        limit=round(sum(ends) / 2, 2),
        lo=ends[0],
        hi=ends[1],
        errors=fewest,
        sick=len(bad),
        healthy=len(good),
    )


@dataclass(kw_only=True)
class Places:
    """How well findings name the layers that do not learn.

    Attributes:
        named: weight layers named. right: those of them that do not learn.
        stuck: layers that do not learn, by the oracle. found: those that are named.
        models: sick models that were flagged with a layer.
        first: models whose first named layer does not learn.
    """

    named: int = 0
    right: int = 0
    stuck: int = 0
    found: int = 0
    models: int = 0
    first: int = 0


def places(rows: Iterable[Row], kind: str, judge: Judge) -> Places:
    """Returns the localisation over sick models that the frozen control grouped."""
    counts = Places()
    for row in rows:
        truth = row["oracle"][kind]
        if truth["label"] not in ("vanishing", "dead"):
            continue
        flags = judge(row, kind).flags
        raised = [*flags.get("vanishing", ()), *flags.get("dead", ())]
        known = {name: learns for names, learns in grouped(truth) for name in names}
        named = [n for n in map(str, dict.fromkeys(raised)) if n in known]
        if not named:
            continue
        stuck = {name for name, learns in known.items() if not learns}
        counts.models += 1
        counts.named += len(named)
        counts.right += sum(n in stuck for n in named)
        counts.stuck += len(stuck)
        counts.found += sum(n in named for n in stuck)
        counts.first += next(n for n in known if n in named) in stuck
    return counts


def grouped(truth: Row) -> list[tuple[list[str], bool]]:
    """Returns the groups of a verdict, each with whether it learns."""
    return list(zip(truth["groups"], truth["learns"], strict=True))
