"""How good a model was found to be: by a scan's batches, a training, or a repair."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vgaudit.fixing import Fixing, keeper
from vgaudit.flow import Audit
from vgaudit.retraining import Epoch, Retraining


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good a model is on samples with labels.

    Attributes:
        metric: ``accuracy``, ``R²``, or empty where only the loss is known.
        value: of the metric: a share for ``accuracy``; None where it is not defined.
        loss: mean over the samples; None where it is not known.
        loss_name: of the loss, or empty where it was not recorded.
        samples: how many.
        on: which samples: ``60 of 600 samples, held out by seed 0``.
        epoch: of a training, whose weights these are; 0 is the model as it came.
    """

    metric: str = ""
    value: float | None = None
    loss: float | None = None
    loss_name: str = ""
    samples: int = 0
    on: str = ""
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A scan, and how good its model is on the same batches.

    Attributes:
        audit: the scan.
        score: None where the batches have no labels, or scoring failed.
        unscored: why scoring failed, or empty.
    """

    audit: Audit
    score: Score | None = None
    unscored: str = ""


def of_training(done: Retraining) -> tuple[Score | None, Score | None]:
    """Returns the validation scores of a model as it came, and of the kept epoch.

    Both are None without validation, the latter also where no epoch was kept yet.
    """
    if not done.run.epochs:
        return None, None
    kept = [epoch for epoch in done.run.epochs if epoch.number == done.run.best]
    after = _of_epoch(done, kept[0]) if kept else None
    return _of_epoch(done, done.run.epochs[0]), after


def _of_epoch(done: Retraining, epoch: Epoch) -> Score | None:
    if epoch.metric is None and epoch.valid_loss is None:
        return None
    return Score(
        metric=done.metric,
        value=epoch.metric,
        loss=epoch.valid_loss,
        loss_name=done.loss,
        # Reports of versions that did not count them have the size of the split.
        samples=done.run.judged or done.split.valid,
        on=done.split.how,
        epoch=epoch.number,
    )


def of_repair(done: Fixing) -> tuple[Score | None, Score | None]:
    """Returns the scores of a model as it came and as it is kept, on judging samples.

    None where it was not judged, or nothing is kept.
    """
    tried = done.attempts if done.status == "unproven" else done.proofs(done.kept)
    after = _judged(done, keeper(done).score) if done.kept and tried else None
    return _judged(done, done.base), after


def _judged(done: Fixing, value: float | None) -> Score | None:
    """Returns a score of a repair, whose losses are negative: higher is better."""
    if value is None or not math.isfinite(value):
        return None
    held = f" out of {done.split.how}" if done.split is not None else ""
    only_loss = done.metric == "loss"
    return Score(
        metric="" if only_loss else done.metric,
        value=None if only_loss else value,
        loss=-value if only_loss else None,
        samples=done.judged,
        on=f"kept for judging{held}",
    )


def of_scan(audit: Audit | None) -> Score | None:
    """Returns the loss that a scan with labels has measured; None without one."""
    if audit is None or audit.flow.loss is None or audit.data.kind != "real":
        return None
    loss, flow = audit.flow.loss, audit.flow
    return Score(
        loss=loss.value,
        loss_name=loss.name,
        samples=flow.samples,
        on=f"those of the scan, in {flow.mode} mode",
    )
