"""The tables of the repairs, as Markdown, from the stored results.

    python -m benchmarks.repairs.table docs/fix.md [--check]

renews what is between the markers; with --check it only says whether it is out of date.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.score import wilson
from benchmarks.detection.train import LEARNED
from benchmarks.page import renew

RESULTS = Path(__file__).with_name("results.jsonl")
CONTROLS = Path(__file__).with_name("controls.jsonl")
HALVES = ("unseen", "second", "report", "develop")
BLOCK = re.compile(r"(<!-- begin repairs -->\n)(.*?)(<!-- end repairs -->)", re.DOTALL)

Row = dict[str, Any]
Reached = Callable[[Row], float | None]

FAMILIES = {
    "treatment": "treatments that fit the findings",
    "sweep": "learning-rate sweep",
    "random": "random repair",
}


def stored(file: Path) -> list[Row]:
    """Returns the finished rows; half a line of a killed run is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def explained(row: Row, score: float | None) -> float:
    """Returns the share that a score makes up of what a constant answer leaves."""
    if score is None:
        return 0.0
    return float((score - row["chance"]) / (1.0 - row["chance"]))


def learned(row: Row, score: float | None) -> bool:
    """Tells whether a score is above chance by the suite's own margin."""
    return score is not None and explained(row, score) >= LEARNED


def repairable(row: Row) -> bool:
    """Tells whether any training of any arm, however short, is above chance."""
    return any(
        learned(row, score)
        for arm in row["arms"].values()
        for score in (*arm["proofs"], *arm["first"].values(), *arm["second"].values())
    )


def fixed(row: Row) -> float | None:
    """Returns the score of the model that ``fix`` delivers; None where it has none."""
    return float(row["final"]) if row["kept"] else None


def delivered_or_shown(row: Row) -> float | None:
    """Returns the same; of a model called healthy what its trial has shown it learns.

    Nothing is written then, but the report names the optimizer and its learning rate.
    """
    shown = row.get("shown")
    return fixed(row) if shown is None else float(shown)


def proven(row: Row) -> float | None:
    """Returns what ``fix`` delivers where a treatment clears both controls."""
    return fixed(row) if row["status"] == "repaired" else None


def arm(family: str) -> Reached:
    """Returns how to read what one family alone would have delivered."""

    def read(row: Row) -> float | None:
        found = row["arms"][family]["kept"]
        return None if found is None else float(found)

    return read


def render(rows: Sequence[Row], controls: Sequence[Row] = ()) -> str:
    """Returns all tables: what was looked at least comes first."""
    parted = {half: [row for row in rows if row["half"] == half] for half in HALVES}
    halves = {half: own for half, own in parted.items() if own}
    parts = [
        _rates(halves),
        *(_ends(own, half) for half, own in halves.items() if half != "develop"),
        *(_missed(own, half) for half, own in halves.items() if half != "develop"),
        _first(rows),
        *(_healthy(controls, half) for half in HALVES),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], body: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def _rates(halves: dict[str, list[Row]]) -> str:
    can = {half: [r for r in rows if repairable(r)] for half, rows in halves.items()}
    if not halves:
        return ""
    first = next(iter(halves))

    def body() -> Iterator[Sequence[str]]:
        yield (
            "sick models: finished; that any training brings above chance",
            *(f"{len(halves[h])}; {len(can[h])}" for h in halves),
            "",
        )
        kinds: dict[str, Reached] = {
            "**`fix`, as delivered**": fixed,
            "`fix`, as delivered or as the trial shows of the plain model": (
                delivered_or_shown
            ),
            **{f"{title} alone": arm(kind) for kind, title in FAMILIES.items()},
            "`fix`, treatments proven against both controls": proven,
        }
        for title, read in kinds.items():
            yield (
                title,
                *(_share([learned(r, read(r)) for r in can[h]]) for h in halves),
                _gain(can[first], read),
            )

    head = ("repaired, of those", *map(_titled, halves), f"gain, {_titled(first)}")
    return _table(head, body())


def _titled(half: str) -> str:
    names = {"unseen": "unseen models", "second": "second draw"}
    return names.get(half, f"{half} half")


def _share(hits: Sequence[bool]) -> str:
    if not hits:
        return "–"
    low, high = (100 * x for x in wilson(sum(hits), len(hits)))
    return f"{sum(hits)}, {100 * sum(hits) / len(hits):.1f} % ({low:.1f}–{high:.1f})"


def _gain(rows: Sequence[Row], read: Reached) -> str:
    """Returns the mean share explained, with twice its standard error over models."""
    found = [max(explained(row, read(row)), 0.0) for row in rows]
    if len(found) < 2:
        return "–"
    error = statistics.stdev(found) / len(found) ** 0.5
    return f"{statistics.mean(found):.2f} ± {1.96 * error:.2f}"


def _ends(rows: Sequence[Row], half: str) -> str:
    ends = Counter(
        {
            "repaired": "a treatment is kept: it clears both controls",
            "control/sweep": "no treatment clears the plain model at another "
            "learning rate, which is recommended and kept",
            "control/random": "no treatment clears random repair, whose draw is kept",
            "unproven": "the best seed is kept: no arm is better over its seeds",
            "nothing": "nothing is kept",
            "healthy": "left alone: no finding fails the scan, and the model as it "
            "came learns something in the trial",
        }[_end(row)]
        for row in rows
    )
    if not ends:
        return ""
    lines = [f"{count} × {name}" for name, count in ends.most_common()]
    return (
        f"How {len(rows)} sick models end ({_titled(half)}): " + "; ".join(lines) + "."
    )


def _end(row: Row) -> str:
    status = str(row["status"])
    return f"{status}/{row['kept_family']}" if status == "control" else status


def _first(rows: Sequence[Row]) -> str:
    """Returns how often one short training alone is above chance, by family."""
    can = [row for row in rows if repairable(row)]
    parts = []
    for family, title in FAMILIES.items():
        hits = [learned(r, s) for r in can for s in r["arms"][family]["first"].values()]
        if hits:
            parts.append(f"{100 * sum(hits) / len(hits):.0f} % of the {title}")
    if not parts:
        return ""
    return (
        "Of single trainings in the first round, a quarter as long and without any "
        "choice, above chance: " + ", ".join(parts) + "."
    )


def _missed(rows: Sequence[Row], half: str) -> str:
    names = [
        f"`{row['name']}` ({row['status']})"
        for row in rows
        if repairable(row) and not learned(row, fixed(row))
    ]
    if not names:
        return ""
    return f"Missed by `fix` ({_titled(half)}): " + ", ".join(names) + "."


def _healthy(rows: Sequence[Row], half: str) -> str:
    """Returns how often a model that learns is treated for nothing."""
    own = [row for row in rows if row["half"] == half and not row["findings"]]
    if not own:
        return ""
    treated = [row for row in own if row["status"] != "healthy"]
    names = ", ".join(f"`{row['name']}` ({row['optimizer']})" for row in treated)
    share = _share([row["status"] != "healthy" for row in own])
    return (
        f"Of {len(own)} models that the suite calls healthy ({_titled(half)}, no "
        f"finding fails) the trial says of {share} that they stay at chance"
        + (f": {names}." if names else ".")
    )


def main() -> None:
    """Renews the page."""
    made = render(stored(RESULTS), stored(CONTROLS))
    renew(
        __doc__.splitlines()[0],
        lambda page: BLOCK.sub(lambda found: f"{found[1]}\n{made}\n{found[3]}", page),
    )


if __name__ == "__main__":
    main()
