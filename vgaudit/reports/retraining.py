"""Trainings as text, JSON or HTML: epochs, controls, and both scans."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

from vgaudit.compare import Comparison
from vgaudit.errors import CannotLoad
from vgaudit.plain import to_plain, visible
from vgaudit.reports import html
from vgaudit.reports.comparison import SCHEMA_VERSION, comparison_lines
from vgaudit.retraining import Against, Epoch, Retraining, Run
from vgaudit.rules.wording import count, decades, number
from vgaudit.typed import Mismatch, typed

MOST = 12
"""Epochs that text shows; JSON has them all."""

LABEL = 30
COLUMN = 14
NOTHING = "–"


def render(
    done: Retraining,
    comparison: Comparison | None,
    *,
    form: str,
    top: int = MOST,
    resume: str = "",
) -> str:
    """Returns a training with its comparison as ``text``, ``json`` or ``html``.

    Args:
        done: what was trained.
        comparison: of the scans before and after; None for an interrupted training.
        form: ``text``, ``json`` or ``html``.
        top: epochs and findings that text shows.
        resume: the command that continues an interrupted training.
    """
    if form == "html":
        return html.retrained(done, comparison).document()
    if form == "json":
        record = {
            "schema_version": SCHEMA_VERSION,
            "retraining": to_plain(done),
            "comparison": to_plain(comparison),
        }
        return json.dumps(record, allow_nan=False, indent=1) + "\n"
    lines = [*_head(done), "", *_epochs(done, top), "", *_runs(done)]
    lines += _verdicts(done)
    if comparison is not None:
        lines += ["", "gradient health", *comparison_lines(comparison, top)]
    lines += ["", *_closing(done, resume)]
    return "\n".join(lines) + "\n"


def parse(record: object) -> Retraining:
    """Returns the training that a worker sent as plain values.

    Raises:
        CannotLoad: it is none.
    """
    try:
        return typed(Retraining, record)
    except Mismatch as error:
        raise CannotLoad(f"not a training: {error}") from error


def _head(done: Retraining) -> Iterator[str]:
    last = done.run.epochs[-1]
    steps = f"{count(last.number, 'epoch')}, {count(last.steps, 'step')}"
    yield f"trained with {done.run.name}: {steps}, loss {visible(done.loss)}"
    yield (
        f"trained on {done.split.train:,} samples; validated on "
        f"{visible(done.split.how)}"
    )
    if done.run.stopped:
        yield f"stopped {done.run.stopped}"


def _epochs(done: Retraining, top: int) -> Iterator[str]:
    metric = done.metric or "metric"
    yield (
        f"  {'epoch':>5} {'train loss':>10} {'valid loss':>10} {metric:>8} "
        f"{'attenuation':>11} {'grad spread':>11} {'skipped':>7} {'s':>7}"
    )
    shown = _chosen(done.run, top)
    for epoch in done.run.epochs:
        if epoch.number in shown:
            yield _epoch(epoch, done)
    left = len(done.run.epochs) - len(shown)
    if left > 0:
        yield f"  … and {left:,} more epochs; --format json has all"


def _chosen(run: Run, top: int) -> set[int]:
    """Returns which epochs to show: the first, the kept, the last, and some between."""
    numbers = [epoch.number for epoch in run.epochs]
    if len(numbers) <= top:
        return set(numbers)
    step = (len(numbers) - 1) / max(top - 2, 1)
    spread = {numbers[round(i * step)] for i in range(max(top - 1, 1))}
    return spread | {run.best}


def _epoch(epoch: Epoch, done: Retraining) -> str:
    mark = "*" if epoch.number == done.run.best else " "
    return (
        f"{mark} {epoch.number:>5} {_number(epoch.train_loss):>10} "
        f"{_number(epoch.valid_loss):>10} {_metric(epoch.metric, done):>8} "
        f"{_decades(epoch.attenuation):>11} {_decades(epoch.spread):>11} "
        f"{epoch.skipped or NOTHING:>7} {epoch.seconds:>7.1f}"
    )


def _runs(done: Retraining) -> Iterator[str]:
    """Yields the figures of the kept epochs side by side, from the same start."""
    runs = (done.run, *done.controls)
    first = done.run.epochs[0]
    names = [visible(run.name, length=COLUMN - 1) for run in runs]
    yield f"{'':<{LABEL}}" + "".join(f"{x:>{COLUMN}}" for x in ("before", *names))

    def row(label: str, of: Callable[[Epoch], str]) -> str:
        cells = [of(first), *(of(run.kept) for run in runs)]
        return f"{label:<{LABEL}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells)

    if done.metric:
        yield row(done.metric, lambda epoch: _metric(epoch.metric, done))
    yield row("validation loss", lambda epoch: _number(epoch.valid_loss))
    yield row("attenuation, decades", lambda epoch: _decades(epoch.attenuation))
    yield row("gradient spread, decades", lambda epoch: _decades(epoch.spread))
    yield row("epoch", lambda epoch: str(epoch.number))
    wander = [NOTHING, *(_decades(run.wander, 2) for run in runs)]
    yield f"{'gradient wander, decades':<{LABEL}}" + "".join(
        f"{cell:>{COLUMN}}" for cell in wander
    )
    seconds = [NOTHING, *(f"{sum(e.seconds for e in run.epochs):.1f}" for run in runs)]
    yield f"{'seconds':<{LABEL}}" + "".join(f"{x:>{COLUMN}}" for x in seconds)
    for run in runs:
        yield from _figures(run)


def _figures(run: Run) -> Iterator[str]:
    """Yields what the method says of itself, in the last epoch that said anything."""
    last = next((e for e in reversed(run.epochs) if e.figures), None)
    if last is not None:
        yield f"{visible(run.name)}, epoch {last.number}:"
        for name, value in last.figures.items():
            yield f"  {visible(name):<{LABEL + 8}}{number(value):>{COLUMN}}"


def _verdicts(done: Retraining) -> list[str]:
    found = [verdict(done, judged) for judged in done.against]
    if done.run.best == 0 and not done.early:
        found.append(
            "no epoch was better than the model as it came: its weights were kept"
        )
    if not done.controls and not done.early:
        other = "centred-adam" if done.run.name == "sdagd" else "adam"
        found.append(
            f"trained without a control: --control {other} tells what the method adds"
        )
    return ["", *found] if found else []


def verdict(done: Retraining, judged: Against) -> str:
    """Returns one sentence on the treatment beside a control."""
    ours, theirs = done.run.name, visible(judged.control)
    if not judged.outcome or judged.difference is None:
        return f"{ours} and {theirs} cannot be compared: there was no validation"
    figures = _difference(done, judged)
    if judged.outcome == "better":
        return f"{ours} is better than {theirs}: {figures}"
    if judged.outcome == "worse":
        return f"{ours} is worse than {theirs}: {figures}; train with {theirs} instead"
    return f"{ours} is no better than {theirs}: {figures}"


def _difference(done: Retraining, judged: Against) -> str:
    assert judged.difference is not None
    if done.metric == "accuracy":
        text = f"{_signed(100 * judged.difference)} points of accuracy"
        if judged.uncertainty is not None:
            samples = f"{done.split.valid:,} samples"
            text += f" (± {100 * judged.uncertainty:.1f} on {samples})"
        return text
    if done.metric:
        return f"{_signed(judged.difference, digits=4)} of {done.metric}"
    return f"{_signed(judged.difference, digits=4)} of validation loss"


def _closing(done: Retraining, resume: str) -> Iterator[str]:
    for run in (done.run, *done.controls):
        for sentence in run.notes:
            yield f"note: {run.name}: {visible(sentence, length=300)}"
    for sentence in done.notes:
        yield f"note: {visible(sentence, length=300)}"
    if done.early:
        yield f"interrupted: {visible(done.early, length=300)}"
        if done.checkpoint:
            yield f"saved in {visible(done.checkpoint)}; to continue: {resume}"
        else:
            yield "nothing was saved: give -o OUT or --run-folder DIR for checkpoints"
    elif done.written:
        yield "written: " + ", ".join(visible(name) for name in done.written)
    else:
        yield "nothing was written; -o OUT.safetensors writes the trained model"


def _number(value: float | None) -> str:
    return NOTHING if value is None else number(value)


def _metric(value: float | None, done: Retraining) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %" if done.metric == "accuracy" else f"{value:.4f}"


def _decades(value: float | None, digits: int = 1) -> str:
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    rounded = round(value, digits) + 0.0  # no negative zero
    return decades(rounded) if digits == 1 else f"{rounded:.{digits}f}"


def _signed(value: float, *, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
