"""Controls of which nothing came: their record, and what every report says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vgaudit.errors import VgauditError
from vgaudit.plain import visible
from vgaudit.retraining import Epoch, Run


def failed(name: str, error: Exception, begun: Run | None) -> Run:
    """Returns the record of a control that failed.

    Args:
        name: of the control.
        error: that ended it.
        begun: what it had recorded; None where it could not even begin.
    """
    if begun is None or not begun.epochs:
        begun = Run(name=name, epochs=(_nothing(),), best=0)
    text = visible(str(error).split("\n", 1)[0], length=300)
    if not isinstance(error, VgauditError):
        text = f"{type(error).__name__}: {text}"
    return dataclasses.replace(begun, failed=text.removeprefix(f"{name}: "))


def _nothing() -> Epoch:
    """Returns the epoch 0 of a run that could not begin."""
    return Epoch(
        number=0,
        steps=0,
        train_loss=None,
        valid_loss=None,
        metric=None,
        lr=None,
        seconds=0.0,
    )


def endings(controls: Sequence[Run]) -> list[str]:
    """Returns what every report must say about controls that did not end as asked."""
    failed = [
        f"the control {run.name} failed, and nothing can be compared with it: "
        f"{run.failed}"
        for run in controls
        if run.failed
    ]
    return failed + [
        f"the control {run.name} stopped {run.stopped}"
        for run in controls
        if run.stopped and not run.failed
    ]
