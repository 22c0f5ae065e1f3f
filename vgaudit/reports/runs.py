"""A treatment and its controls side by side: the rows that text and HTML share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vgaudit.retraining import Epoch, Retraining, Run
from vgaudit.rules.wording import decades, number

NOTHING = "–"
FAILED = "failed"
END = "end"
"""Stands for the number of an epoch that is none, but what a method does in the end."""

MEANING = (
    "Uniformity over layers: gradient spread is the decades between the largest and "
    "the smallest layer, gradient uniformity the standard deviation of log₁₀ over "
    "layers; less is more uniform. Stability over epochs: gradient wander is the "
    "standard deviation of log₁₀ over epochs, median over layers."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, below what ``heads`` returns."""

    label: str
    cells: tuple[str, ...]


def heads(done: Retraining) -> tuple[str, ...]:
    """Returns what stands side by side: the model as it came, then the runs.

    Between them what a conversion alone made of it, where there was one.
    """
    names = (run.name for run in (done.run, *done.controls))
    return ("before", *(["converted"] if done.run.converted else []), *names)


def side_by_side(done: Retraining) -> list[Row]:
    """Returns the figures below ``heads``, of each run those of its kept epoch."""
    rows, converted = [], done.run.converted
    if done.metric:
        rows.append(_row(done, done.metric, lambda e: metric_cell(e.metric, done)))
    rows += [
        _row(done, "validation loss", lambda e: number_cell(e.valid_loss)),
        _row(done, "attenuation, decades", lambda e: decades_cell(e.attenuation)),
        _row(done, "gradient spread, decades", lambda e: decades_cell(e.spread)),
        _row(
            done, "gradient uniformity, decades", lambda e: decades_cell(e.uniformity)
        ),
        _row(done, "epoch", lambda e: NOTHING if e is converted else epoch_cell(e)),
    ]
    runs = (done.run, *done.controls)
    untrained = (NOTHING,) * len(_untrained(done))
    wander = (decades_cell(run.wander, 2) for run in runs)
    rows.append(Row("gradient wander, decades", (*untrained, *wander)))
    seconds = (f"{sum(e.seconds for e in run.epochs):.1f}" for run in runs)
    rows.append(Row("seconds", (*untrained, *seconds)))
    return rows


def _untrained(done: Retraining) -> list[Epoch]:
    """Returns the model as it came, and converted where it was."""
    converted = done.run.converted
    return [done.run.epochs[0], *([converted] if converted is not None else [])]


def _row(done: Retraining, label: str, of: Callable[[Epoch], str]) -> Row:
    runs = (done.run, *done.controls)
    cells = (FAILED if run.failed else of(run.kept) for run in runs)
    return Row(label, (*map(of, _untrained(done)), *cells))


def told(run: Run) -> tuple[tuple[str, Epoch], ...]:
    """Returns the epochs whose own figures a report shows: the kept and the last.

    The delivered weights are those of the kept epoch; of a run that keeps none of its
    own, or whose method had nothing to say then, the last one is left.
    """
    said = [epoch for epoch in run.epochs if epoch.figures]
    kept = [epoch for epoch in said if epoch.number == run.best]
    found = [(f"{_named(epoch)} (kept)", epoch) for epoch in kept]
    if said and said[-1] not in kept:
        found.append((_named(said[-1]), said[-1]))
    return tuple(found)


def _named(epoch: Epoch) -> str:
    return END if epoch.finish else f"epoch {epoch.number}"


def epoch_cell(epoch: Epoch) -> str:
    """Returns the number of an epoch; of what ends a training, that it does."""
    return END if epoch.finish else str(epoch.number)


def number_cell(value: float | None) -> str:
    """Returns a number as a table shows it."""
    return NOTHING if value is None else number(value)


def metric_cell(value: float | None, done: Retraining) -> str:
    """Returns an accuracy in percent, another metric with four decimals."""
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %" if done.metric == "accuracy" else f"{value:.4f}"


def score_cell(epoch: Epoch, done: Retraining) -> str:
    """Returns the metric of an epoch; the validation loss where there is none."""
    if done.metric:
        return metric_cell(epoch.metric, done)
    return number_cell(epoch.valid_loss)


def decades_cell(value: float | None, digits: int = 1) -> str:
    """Returns decades as a table shows them."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    rounded = round(value, digits) + 0.0  # no negative zero
    return decades(rounded) if digits == 1 else f"{rounded:.{digits}f}"
