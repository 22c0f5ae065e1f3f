"""What counts as learning in a trial, and what it is compared with."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.fixing.made import fixing, plan
from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses.compare import LOSSES
from vgaudit.fixing import Attempt, Fixing, Length, Trial
from vgaudit.repair import trial
from vgaudit.repair.chance import constant_loss, exchanged


def trial_of(score: float, share: float | None, *, failure: str = "") -> Fixing:
    """Returns a trial with one training; one class in ten is right by itself."""
    attempt = Attempt(
        arm="plain sgd, lr 0.1",
        seed=0,
        rung=None,
        run=None,
        score=score,
        chosen=score,
        steps=200,
        seconds=1.0,
        failure=failure,
    )
    made = Trial(
        arms=(), length=Length(lap=25, count=8), attempts=(attempt,), explained=(share,)
    )
    return dataclasses.replace(fixing(plan(), []), trial=made)


@pytest.mark.parametrize(
    ("score", "share", "wanted"),
    [
        (0.9, 0.8, True),
        (0.1, 0.0, False),
        # 5,000 samples: 1.96 · √(2 · 0.1 · 0.9 / 5000) are 1.2 points.
        (0.111, 0.01, False),
        (0.113, 0.01, True),
        # No more is right than by the frequent class alone, but the loss tells.
        (0.1, 0.06, True),
        (0.1, 0.04, False),
        (0.1, None, False),
        (0.3, None, True),
        # An answer that is sure and often wrong, yet more often right than by luck.
        (0.3, -2.0, True),
    ],
)
def test_what_counts_as_learning(score: float, share: float | None, wanted) -> None:
    assert trial.learned(trial_of(score, share)) is wanted


def test_a_regression_must_explain_five_percent() -> None:
    for share, wanted in ((0.03, False), (0.07, True)):
        found = dataclasses.replace(trial_of(share, share), metric="R²", chance=0.0)
        assert trial.learned(found) is wanted


def test_what_fails_has_not_learned() -> None:
    assert not trial.learned(trial_of(0.9, 0.9, failure="the loss is nan"))


def least_loss(labels: Tensor, name: str, outputs: int) -> float:
    """Returns the least loss of one answer for all samples, found by descent."""
    answer = torch.zeros(1, outputs, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([answer], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = LOSSES[name](answer.expand(len(labels), -1), labels)
        value.backward()
        return value

    search.step(loss)
    return float(loss().detach())


@pytest.mark.parametrize(
    ("labels", "name", "outputs"),
    [
        (torch.tensor([0, 1, 1, 2, 1, 2]), "cross-entropy", 3),
        (torch.tensor([0, 1, 1, -100, 1, 2, -100]), "cross-entropy", 3),
        (torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]]), "cross-entropy", 2),
        (torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), "bce-with-logits", 2),
    ],
)
def test_the_loss_of_the_best_constant_answer(
    labels: Tensor, name: str, outputs: int
) -> None:
    parts = torch.split(labels, 2)
    batches = [Batch(args=(), labels=part, size=len(part)) for part in parts]
    found = constant_loss(batches, Loss(name, LOSSES[name]))

    assert found == pytest.approx(least_loss(labels, name, outputs), abs=1e-4)


def test_no_entropy_is_known_of_numbers_and_none_is_there_of_one_class() -> None:
    batch = [Batch(args=(), labels=torch.ones(4, dtype=torch.long), size=4)]

    assert constant_loss(batch, Loss("cross-entropy", LOSSES["cross-entropy"])) is None
    assert constant_loss(batch, Loss("mse", LOSSES["mse"])) is None


def test_labels_are_exchanged_and_none_is_lost() -> None:
    batches = [Batch(labels=torch.arange(i, i + 5), size=5) for i in (0, 5)]
    found = [batch.labels for batch in exchanged(batches) if batch is not None]

    assert torch.equal(torch.cat(found).sort().values, torch.arange(10))
    assert not any(
        bool((new == old.labels).any()) for new, old in zip(found, batches, strict=True)
    )
    assert [*exchanged([Batch(labels=(1, 2), size=2)])] == [None]
