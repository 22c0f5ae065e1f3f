"""The relaxation gap that trainings report, beside one taken with plain autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.courses import net, options, samples, trained
from vgaudit.retraining import Epoch
from vgaudit.training.rai.gate import RATE
from vgaudit.training.runner import FROM_SCANS
from vgaudit.training.task import Finished

ROWS = 40
X, Y = samples(ROWS)


def run(mode: str, epochs: int = 1, **settings: str) -> Finished:
    """Trains on all samples at once and keeps the last epoch: none is held out."""
    asked = options(
        "rai",
        epochs=epochs,
        batch_size=ROWS,
        valid_split=0.0,
        schedule="constant",
        settings={"mode": mode, **settings},
    )
    return trained(net(), asked, data=(X, Y))


def values(model: nn.Module) -> list[Tensor]:
    """Returns what leaves each linear layer in the ordinary forward pass."""
    first, _, second, _, third = model
    z = first(X)
    w = second(torch.sigmoid(z))
    return [z.detach(), w.detach(), third(torch.sigmoid(w)).detach()]


def pulled(model: nn.Module, target: Tensor) -> Tensor:
    """Returns the last target after one sign step down the output loss."""
    free = target.clone().requires_grad_()
    loss = F.cross_entropy(model[4](torch.sigmoid(free)), Y)
    (gradient,) = torch.autograd.grad(loss, free)
    return target - RATE * gradient.sign()


def expected(model: nn.Module, targets: Sequence[Tensor]) -> dict[str, float]:
    """Returns the gap of a model and its two targets."""
    first, _, second, _, third = model
    relaxed = F.cross_entropy(third(torch.sigmoid(targets[1])), Y).item()
    forward = F.cross_entropy(model(X), Y).item()
    arriving = first(X), second(torch.sigmoid(targets[0]))
    residuals = [
        ((z - t).square().mean() / (t - t.mean(0)).square().mean()).sqrt().item()
        for z, t in zip(arriving, targets, strict=True)
    ]
    return {
        "relaxed loss": relaxed,
        "forward loss": forward,
        "relaxation gap": forward - relaxed,
        "largest residual": max(residuals),
    }


def last(done: Finished) -> Epoch:
    return done.retraining.run.epochs[-1]


def agrees(epoch: Epoch, wanted: dict[str, float]) -> None:
    found = {name: epoch.figures[name] for name in wanted}
    assert found == {name: pytest.approx(v, abs=2e-6) for name, v in wanted.items()}


@torch.enable_grad()
def test_stored_targets_report_the_gap_of_the_network_they_leave() -> None:
    done, start = run("table"), net()
    first, second, _ = values(start)

    agrees(last(done), expected(done.model, [first, pulled(start, second)]))


@torch.enable_grad()
def test_inferred_targets_report_the_gap_of_the_network_they_leave() -> None:
    done = run("infer", inner="1")
    first, second, _ = values(done.model)

    agrees(last(done), expected(done.model, [first, pulled(done.model, second)]))


@pytest.mark.parametrize("mode", ["table", "infer", "reference"])
def test_the_train_loss_is_that_of_the_ordinary_forward_pass(mode: str) -> None:
    epochs = run(mode, epochs=6).retraining.run.epochs
    trained_on = [epoch for epoch in epochs if epoch.train_loss is not None]
    start = F.cross_entropy(net()(X), Y).item()
    before = [start, *(epoch.figures["forward loss"] for epoch in trained_on[:-1])]

    assert [pytest.approx(x, abs=2e-6) for x in before] == [
        epoch.train_loss for epoch in trained_on
    ]
    # The relaxed loss is another one: it is below what the network itself reaches.
    assert trained_on[-1].figures["relaxation gap"] > 0.01


@pytest.mark.parametrize("mode", ["table", "infer"])
def test_every_epoch_in_mini_batches_has_a_gap(mode: str) -> None:
    asked = options("rai", settings={"mode": mode}, accumulate=2)
    _, *epochs = trained(net(), asked).retraining.run.epochs

    assert len(epochs) == 3
    for epoch in epochs:
        figures = epoch.figures
        gap = figures["forward loss"] - figures["relaxed loss"]
        assert figures["relaxation gap"] == pytest.approx(gap, abs=1e-9)


def test_a_sweep_relaxes_nothing() -> None:
    asked = options("rai", settings={"mode": "sweep"})
    _, *epochs = trained(net(), asked).retraining.run.epochs

    assert all(not epoch.figures for epoch in epochs)


def test_the_flow_of_the_delivered_network_is_recorded() -> None:
    done = run("reference", epochs=6)
    F.cross_entropy(done.model(X), Y).backward()
    sizes = {
        name: done.model.get_submodule(name).weight.grad.square().mean().sqrt()
        for name in ("0", "2", "4")
    }
    layers = last(done).layers

    assert list(sizes) == [layer.layer for layer in layers]
    for layer in layers:
        # A scan takes some of the samples.
        wanted = sizes[layer.layer].log10().item()
        assert math.log10(layer.rms) == pytest.approx(wanted, abs=0.3)


def test_a_full_batch_method_has_a_flow_in_every_epoch() -> None:
    done = run("reference", epochs=6).retraining.run

    assert [0, 1, 2, 3, 4, 5, 6, 7] == [e.number for e in done.epochs if e.layers]
    assert done.wander is not None
    assert FROM_SCANS in done.notes
