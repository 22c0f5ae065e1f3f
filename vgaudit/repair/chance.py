"""What a constant answer scores: a model that knows only the labels' frequencies."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import settled
from vgaudit.data.losses.compare import IGNORED
from vgaudit.data.losses.outputs import main_output
from vgaudit.training.metrics import ACCURACY, metric_of

_BINARY = ("bce", "bce-with-logits")


def chance(batches: Iterable[Batch], loss: Loss) -> float | None:
    """Returns the score of the best constant answer, known in hindsight.

    The most frequent class of an accuracy, for each output where there are several
    decisions; 0 of R², by its definition; None of a loss alone.
    """
    kind = metric_of(loss)
    if not kind:
        return None
    if kind != ACCURACY:
        return 0.0
    found = [wanted for batch in batches if (wanted := _labels(batch)) is not None]
    if not found:
        return None
    if settled(loss).name in _BINARY:
        return _decisions(torch.cat([one.reshape(len(one), -1) for one in found]))
    return _classes(torch.cat([_numbers(one) for one in found]))


def _labels(batch: Batch) -> Tensor | None:
    wanted = main_output(batch.labels)
    return None if wanted is None else wanted.detach().cpu()


def _numbers(labels: Tensor) -> Tensor:
    """Returns class numbers; probabilities name the likeliest class."""
    if labels.is_floating_point() and labels.dim() > 1 and labels.shape[1] > 1:
        labels = labels.argmax(1)
    return labels.reshape(-1).long()


def _classes(numbers: Tensor) -> float | None:
    counted = numbers[numbers != IGNORED]
    if not len(counted):
        return None
    _, found = torch.unique(counted, return_counts=True)
    return float(found.max()) / len(counted)


def _decisions(truth: Tensor) -> float:
    share = (truth > 0.5).double().mean(0)
    return float(torch.maximum(share, 1.0 - share).mean())
