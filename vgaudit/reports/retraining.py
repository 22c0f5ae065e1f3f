"""Trainings as text, JSON or HTML: epochs, controls, and both scans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vgaudit.compare import Comparison
from vgaudit.errors import CannotLoad
from vgaudit.plain import to_plain, visible
from vgaudit.reports import beside, epochs, html
from vgaudit.reports.comparison import SCHEMA_VERSION, comparison_lines
from vgaudit.reports.json import schema as schema_of
from vgaudit.reports.runs import (
    Row,
    heads,
    number_cell,
    side_by_side,
    told,
)
from vgaudit.retraining import Epoch, Retraining, Run
from vgaudit.rules.wording import count
from vgaudit.typed import Mismatch, typed

DERIVED = {"Epoch": ("spread", "uniformity"), "Run": ("wander",)}
"""Figures in JSON that follow from the recorded flow."""

MOST = 12
"""Epochs that text shows; JSON has them all."""

WIDTH = 80
LABEL = 28
LEAST_COLUMN, MOST_COLUMN = 13, 26
"""Of a run: names up to one less are shown whole."""

OWN_LABEL = 32
WIDE = 18


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
            "retraining": _record(done),
            "comparison": to_plain(comparison),
        }
        return json.dumps(record, allow_nan=False, indent=1) + "\n"
    lines = [*_head(done), "", *epochs.rows(done, top), "", *_runs(done)]
    said = beside.sentences(done)
    lines += ["", *said] if said else []
    if comparison is not None:
        lines += ["", "gradient health", *comparison_lines(comparison, top)]
    lines += ["", *_closing(done, resume)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDocument:
    """What ``render`` writes as JSON.

    Attributes:
        retraining: the training; its epochs and runs have some figures more, which
            follow from the others.
        comparison: of the scans before and after; None where one is missing.
    """

    schema_version: str
    retraining: Retraining
    comparison: Comparison | None


def schema() -> str:
    """Returns the JSON schema of the report on a training."""
    made: dict[str, Any] = json.loads(
        schema_of(TrainingDocument, "vgaudit report on a training")
    )
    number = {"anyOf": [{"type": "number"}, {"enum": ["inf"]}, {"type": "null"}]}
    for kind, names in DERIVED.items():
        properties = made["$defs"][kind]["properties"]
        properties.update({name: {"title": name, **number} for name in names})
    return json.dumps(made, indent=1) + "\n"


def _record(done: Retraining) -> dict[str, Any]:
    """Returns a training as plain values, with what follows from its epochs."""
    return {
        **to_plain(done),
        "run": _run(done.run),
        "controls": [_run(run) for run in done.controls],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        **to_plain(run),
        "epochs": [_epoch(epoch) for epoch in run.epochs],
        "converted": None if run.converted is None else _epoch(run.converted),
        **_derived(run),
    }


def _epoch(epoch: Epoch) -> dict[str, Any]:
    return {**to_plain(epoch), **_derived(epoch)}


def _derived(value: Epoch | Run) -> dict[str, Any]:
    names = DERIVED[type(value).__name__]
    return {name: to_plain(getattr(value, name)) for name in names}


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
    steps = f"{count(done.run.passes, 'epoch')}, {count(last.steps, 'step')}"
    yield f"trained with {done.run.name}: {steps}, loss {visible(done.loss)}"
    yield (
        f"trained on {done.split.train:,} samples; validated on "
        f"{visible(done.split.how)}"
    )
    if done.run.stopped:
        yield f"stopped {done.run.stopped}"


def _runs(done: Retraining) -> Iterator[str]:
    """Yields the figures of the kept epochs side by side, from the same start.

    What is too wide for one table stands in several, one below the other.
    """
    names = tuple(visible(name, length=MOST_COLUMN - 1) for name in heads(done))
    rows = (Row("", names), *side_by_side(done))
    column = max(LEAST_COLUMN, *(len(name) + 1 for name in names))
    several = (WIDTH - LABEL) // column
    for first in range(0, len(names), several):
        if first:
            yield ""
        for row in rows:
            cells = row.cells[first : first + several]
            yield f"{row.label:<{LABEL}}" + "".join(f"{x:>{column}}" for x in cells)
    for run in (done.run, *done.controls):
        yield from _figures(run)


def _figures(run: Run) -> Iterator[str]:
    """Yields what the method says of itself: of the kept epoch, and of the last."""
    shown = told(run)
    if not shown:
        return
    heads = "".join(f"{name:>{WIDE}}" for name, _ in shown)
    yield f"{visible(run.name, length=OWN_LABEL):<{OWN_LABEL}}{heads}"
    names = dict.fromkeys(name for _, epoch in shown for name in epoch.figures)
    for name in names:
        cells = (number_cell(epoch.figures.get(name)) for _, epoch in shown)
        row = "".join(f"{cell:>{WIDE}}" for cell in cells)
        yield f"  {visible(name):<{OWN_LABEL - 2}}{row}"


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
