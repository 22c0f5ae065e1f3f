"""The epochs of a training as rows of text, gaps where they are."""

from __future__ import annotations

from collections.abc import Iterator

from vgaudit.reports.runs import (
    NOTHING,
    decades_cell,
    epoch_cell,
    metric_cell,
    number_cell,
)
from vgaudit.retraining import Epoch, Retraining, Run

LEAST = 4
"""Epochs that a gap hides at least: with its row it saves three lines then."""


def rows(done: Retraining, top: int) -> Iterator[str]:
    """Yields a table of about ``top`` epochs, and how many of all are not in it."""
    metric = done.metric or "metric"
    yield (
        f"  {'epoch':>5} {'train loss':>10} {'valid loss':>10} {metric:>8} "
        f"{'attenuation':>11} {'grad spread':>11} {'skipped':>7} {'s':>7}"
    )
    hidden = 0
    for part in _parts(done.run, top):
        if isinstance(part, Epoch):
            yield _row(part, done)
        else:
            hidden += part
            yield f"  {'…':>5}"
    if done.run.epochs[-1].finish:
        yield f"  end: what {done.run.name} does after the last epoch"
    if hidden:
        total = len(done.run.epochs)
        yield f"  … stands for {hidden:,} of {total:,} epochs; --format json has all"


def _parts(run: Run, top: int) -> Iterator[Epoch | int]:
    """Yields epochs in order, and in between how many are left out."""
    chosen = _chosen(run, top)
    after = 0
    for at in sorted(chosen):
        between = run.epochs[after:at]
        if len(between) >= LEAST:
            yield len(between)
        else:
            yield from between
        yield run.epochs[at]
        after = at + 1


def _chosen(run: Run, top: int) -> set[int]:
    """Returns which epochs to show: the first ones, the last, the kept, some between.

    Those between lie as far apart as each other, and only as many as leave gaps that
    are worth a row; the fewer they are, the more stand at both ends.
    """
    total = len(run.epochs)
    for several in range(top // 4, -1, -1):
        ends = max((top - several) // 2, 1)
        between = total - 2 * ends
        if between + 1 >= (several + 1) * (LEAST + 1):
            break
    if between <= 0:
        return set(range(total))
    step = (between + 1) / (several + 1)
    inner = {ends - 1 + round(i * step) for i in range(1, several + 1)}
    kept = {at for at, epoch in enumerate(run.epochs) if epoch.number == run.best}
    return {*range(ends), *inner, *kept, *range(total - ends, total)}


def _row(epoch: Epoch, done: Retraining) -> str:
    mark = "*" if epoch.number == done.run.best else " "
    return (
        f"{mark} {epoch_cell(epoch):>5} {number_cell(epoch.train_loss):>10} "
        f"{number_cell(epoch.valid_loss):>10} {metric_cell(epoch.metric, done):>8} "
        f"{decades_cell(epoch.attenuation):>11} {decades_cell(epoch.spread):>11} "
        f"{epoch.skipped or NOTHING:>7} {epoch.seconds:>7.1f}"
    )
