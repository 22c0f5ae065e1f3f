"""A readout is the last layer that the loss sees, however the model is called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.courses import (
    CLASSES,
    FEATURES,
    net,
    options,
    plain_loop,
    same,
    trained,
    warmup_linear,
)


class Two(nn.Module):
    """Two heads on one trunk; the second is called last."""

    def __init__(self, *, named: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 8), nn.Sigmoid())
        self.first, self.second = nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)
        self.named = named

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        z = self.trunk(x)
        one, other = self.first(z), self.second(z)
        return {"one": one, "other": other} if self.named else (one, other)


class Detached(nn.Module):
    """The layer before the last is called last; what the loss gets has no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CLASSES))
        self.layer = nn.Linear(FEATURES, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :CLASSES] * self.scale, self.layer(x)


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    """Returns the names of the parameters that differ."""
    found = dict(after.named_parameters())
    return {n for n, p in before.named_parameters() if not torch.equal(p, found[n])}


def second(output: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    return F.cross_entropy(output[1], labels)


@pytest.mark.parametrize("named", [False, True])
def test_of_two_heads_the_one_of_the_loss_is_trained(named) -> None:
    model = Two(named=named)
    done = trained(model, options("readout"))

    assert moved(model, done.model) == {"first.weight", "first.bias"}


def test_another_loss_has_another_readout() -> None:
    model = Two()
    done = trained(model, options("readout"), loss=second)

    assert moved(model, done.model) == {"second.weight", "second.bias"}


def test_a_frozen_head_is_trained_as_a_readout_and_nothing_else() -> None:
    model = net()
    model[-1].requires_grad_(False)
    model[0].requires_grad_(False)
    done = trained(model, options("adam", controls=("readout",)))
    (control,) = done.retraining.controls

    assert control.failed == ""
    assert control.epochs[-1].train_loss < control.epochs[1].train_loss


def test_a_readout_is_the_loop_that_anybody_would_write() -> None:
    """Looking for the layer must leave no trace in the running statistics."""
    by_hand = net(norm=True)
    made = plain_loop(
        by_hand,
        lambda params: torch.optim.Adam(params[-2:], 0.05),
        factor=warmup_linear,
    )
    done = trained(net(norm=True), options("readout", lr=0.05))

    assert done.retraining.run.best > 0
    assert same(done.model, made[done.retraining.run.best - 1])


def test_without_a_layer_before_the_loss_there_is_no_readout() -> None:
    done = trained(Detached(), options("adam", controls=("readout",)))
    (control,) = done.retraining.controls

    assert "no layer with a weight reaches the loss" in control.failed
