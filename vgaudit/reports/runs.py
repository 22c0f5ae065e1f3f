"""A treatment and its controls side by side: the rows that text and HTML share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vgaudit.retraining import Epoch, Retraining, Run
from vgaudit.rules.wording import decades, number

NOTHING = "–"
FAILED = "failed"

MEANING = (
    "Uniformity over layers: gradient spread is the decades between the largest and "
    "the smallest layer, gradient uniformity the standard deviation of log₁₀ over "
    "layers; less is more uniform. Stability over epochs: gradient wander is the "
    "standard deviation of log₁₀ over epochs, median over layers."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: of the model as it came, and of the kept epoch of each run."""

    label: str
    cells: tuple[str, ...]


def side_by_side(done: Retraining) -> list[Row]:
    """Returns the figures of the kept epochs, the model as it came first."""
    rows = []
    if done.metric:
        rows.append(_row(done, done.metric, lambda e: metric_cell(e.metric, done)))
    rows += [
        _row(done, "validation loss", lambda e: number_cell(e.valid_loss)),
        _row(done, "attenuation, decades", lambda e: decades_cell(e.attenuation)),
        _row(done, "gradient spread, decades", lambda e: decades_cell(e.spread)),
        _row(
            done, "gradient uniformity, decades", lambda e: decades_cell(e.uniformity)
        ),
        _row(done, "epoch", lambda e: str(e.number)),
    ]
    runs = (done.run, *done.controls)
    wander = (decades_cell(run.wander, 2) for run in runs)
    rows.append(Row("gradient wander, decades", (NOTHING, *wander)))
    seconds = (f"{sum(e.seconds for e in run.epochs):.1f}" for run in runs)
    rows.append(Row("seconds", (NOTHING, *seconds)))
    return rows


def _row(done: Retraining, label: str, of: Callable[[Epoch], str]) -> Row:
    runs = (done.run, *done.controls)
    cells = (FAILED if run.failed else of(run.kept) for run in runs)
    return Row(label, (of(done.run.epochs[0]), *cells))


def told(run: Run) -> tuple[tuple[str, Epoch], ...]:
    """Returns the epochs whose own figures a report shows: the kept and the last.

    The delivered weights are those of the kept epoch; of a run that keeps none of its
    own, or whose method had nothing to say then, the last one is left.
    """
    said = [epoch for epoch in run.epochs if epoch.figures]
    kept = [epoch for epoch in said if epoch.number == run.best]
    found = [(f"epoch {epoch.number} (kept)", epoch) for epoch in kept]
    if said and said[-1] not in kept:
        found.append((f"epoch {said[-1].number}", said[-1]))
    return tuple(found)


def number_cell(value: float | None) -> str:
    """Returns a number as a table shows it."""
    return NOTHING if value is None else number(value)


def metric_cell(value: float | None, done: Retraining) -> str:
    """Returns an accuracy in percent, another metric with four decimals."""
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %" if done.metric == "accuracy" else f"{value:.4f}"


def decades_cell(value: float | None, digits: int = 1) -> str:
    """Returns decades as a table shows them."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    rounded = round(value, digits) + 0.0  # no negative zero
    return decades(rounded) if digits == 1 else f"{rounded:.{digits}f}"
