"""What a constant answer scores, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses.compare import LOSSES
from vgaudit.repair.chance import chance


def batches(labels: Tensor) -> list[Batch]:
    parts = torch.split(labels, 2)
    return [Batch(args=(), labels=part, size=len(part)) for part in parts]


@pytest.mark.parametrize(
    ("labels", "loss", "wanted"),
    [
        ([0, 1, 1, 2, 1], "cross-entropy", 0.6),
        # The label -100 is left out by the loss: two of three.
        ([4, 4, -100, -100, 1], "cross-entropy", 2 / 3),
        ([[0, 0], [0, 1]], "cross-entropy", 0.75),
        # Probabilities name their likeliest class.
        ([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], "cross-entropy", 2 / 3),
        # For each decision by itself: 2/3 of the first and 1 of the second.
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], "bce-with-logits", 5 / 6),
        ([1.0, 2.0, 7.0], "mse", 0.0),
    ],
)
def test_chance(labels: list[object], loss: str, wanted: float) -> None:
    found = chance(batches(torch.tensor(labels)), Loss(loss, LOSSES[loss]))

    assert found == pytest.approx(wanted)


def test_of_a_loss_of_ones_own_nothing_is_known() -> None:
    own = Loss("mine", lambda output, labels: output.sum())

    assert chance(batches(torch.tensor([0, 1])), own) is None
