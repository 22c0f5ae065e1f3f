"""What a constant answer scores: a model that knows only the labels' frequencies.

Where no constant answer is known, as for a loss of one's own: what the model scores
with the labels of other samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

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
    found = _all_labels(batches)
    if not found:
        return None
    if settled(loss).name in _BINARY:
        return _decisions(_columns(found))
    return _classes(torch.cat([_numbers(one) for one in found]))


def constant_loss(batches: Iterable[Batch], loss: Loss) -> float | None:
    """Returns the least loss that a constant answer can have, in nats.

    The entropy of the labels, their mean over several decisions; None where that is
    not the loss, or where it is not above 0.
    """
    if metric_of(loss) != ACCURACY:
        return None
    found = _all_labels(batches)
    if not found:
        return None
    if settled(loss).name in _BINARY:
        truth = _columns(found).double().mean(0)
        entropy = (_surprise(truth) + _surprise(1.0 - truth)).mean()
    elif found[0].is_floating_point() and found[0].dim() > 1 and found[0].shape[1] > 1:
        entropy = _surprise(torch.cat([_shares(one) for one in found]).mean(0)).sum()
    else:
        numbers = torch.cat([_numbers(one) for one in found])
        _, counts = torch.unique(numbers[numbers != IGNORED], return_counts=True)
        entropy = _surprise(counts.double() / max(int(counts.sum()), 1)).sum()
    return float(entropy) if float(entropy) > 0.0 else None


def exchanged(batches: Iterable[Batch]) -> Iterator[Batch | None]:
    """Yields batches in which each sample has another's labels; None where it cannot.

    The samples must come in a random order: those beside each other change labels.
    """
    for batch in batches:
        labels = batch.labels
        if not isinstance(labels, Tensor) or labels.dim() == 0:
            yield None
            return
        if len(labels) > 1:
            yield dataclasses.replace(batch, labels=labels.roll(1, 0))


def _all_labels(batches: Iterable[Batch]) -> list[Tensor]:
    return [wanted for batch in batches if (wanted := _labels(batch)) is not None]


def _columns(labels: Iterable[Tensor]) -> Tensor:
    """Returns one decision a column, ``[N, decisions]``."""
    return torch.cat([one.reshape(len(one), -1) for one in labels])


def _shares(probabilities: Tensor) -> Tensor:
    """Returns probabilities ``[N, classes, …]`` as ``[all, classes]``."""
    return probabilities.double().movedim(1, -1).flatten(0, -2)


def _surprise(share: Tensor) -> Tensor:
    """Returns −p·ln p of each share, 0 at 0."""
    return -torch.xlogy(share, share)


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
