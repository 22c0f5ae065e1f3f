"""Re-alignment and readout against closed forms; the gap by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training_rai.nets import BCE, MSE, Residual, chain, images, moons
from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRewrite
from vgaudit.training.rai import Relaxation, align, find_cuts, measure_gap, refusal
from vgaudit.training.rai.least_squares import explained, ridge
from vgaudit.training.rai.readout import refit_readout
from vgaudit.training.rai.relaxed import calibrate, frozen


@pytest.mark.parametrize(("samples", "inputs"), [(30, 7), (7, 30)])
@pytest.mark.parametrize("centred", [True, False])
def test_ridge_is_least_squares_with_rows_for_the_penalty(
    samples: int, inputs: int, centred: bool
) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(samples, inputs)) + 3
    y = generator.normal(size=(samples, 4))
    mean_x, mean_y = (x.mean(0), y.mean(0)) if centred else (0, 0)
    penalty = 0.01 * ((x - mean_x) ** 2).sum() / inputs
    stacked = np.vstack([x - mean_x, math.sqrt(penalty) * np.eye(inputs)])
    wanted = np.vstack([y - mean_y, np.zeros((inputs, 4))])
    expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0].T

    weight, bias = ridge(
        torch.from_numpy(x), torch.from_numpy(y), 0.01, centred=centred
    )

    np.testing.assert_allclose(expected, weight.numpy(), rtol=1e-8, atol=1e-10)
    shift = mean_y - expected @ mean_x if centred else np.zeros(4)
    np.testing.assert_allclose(shift, bias.numpy(), rtol=1e-8, atol=1e-9)


def test_constant_inputs_leave_the_mean() -> None:
    weight, bias = ridge(torch.ones(5, 3), torch.arange(5.0)[:, None], 1e-5)

    assert torch.equal(torch.zeros(1, 3).double(), weight)
    torch.testing.assert_close(bias, torch.tensor([2.0]).double())


def test_labels_explain_what_is_between_the_classes() -> None:
    values = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    labels = torch.tensor([0, 0, 1, 1])

    # Between: means 1 and 5 around 3, twice each: 16. Whole: 9 + 1 + 1 + 9 = 20.
    assert pytest.approx(0.8) == explained(values, labels)
    assert explained(torch.ones(4, 2), labels) is None


def test_real_labels_explain_what_a_line_through_them_does() -> None:
    torch.manual_seed(0)
    y = torch.randn(200)
    noise = torch.randn(200)
    values = (2 * y + noise)[:, None]

    expected = float(np.corrcoef(values[:, 0], y)[0, 1] ** 2)
    assert pytest.approx(expected, abs=1e-9) == explained(values, y)


def _aligned_to_another(model: nn.Module, batch: Batch) -> tuple[list, list]:
    """Targets that another net of the same form reaches, and what align makes."""
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    for name, parameter in other.named_parameters():
        if not name.startswith("stem") and "norm" not in name and name[0] != "0":
            nn.init.normal_(parameter, std=0.5)
    cuts = find_cuts(model, batch)
    with frozen(other):
        targets = Relaxation(other, cuts, BCE).values(batch)
    assert "" == refusal(model, cuts, batch)
    align(model, cuts, batch, targets, strength=1e-14)
    with frozen(model):
        return targets, Relaxation(model, cuts, BCE).values(batch)


def test_targets_that_can_be_reached_are_reached() -> None:
    model, batch = chain(5, 4, nn.Tanh).double(), moons(200, 0, torch.float64)
    targets, found = _aligned_to_another(model, batch)

    # The first stage is not refitted, and the same in both nets.
    for a, b in zip(targets, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class _Straight(nn.Module):
    """Residual blocks whose branch is one convolution with normalisation behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1, bias=b) for b in (0, 1))
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.one(x.tanh()))
        x = x + y
        z = self.two(x.tanh())
        z += x
        return self.head(z.mean((2, 3)))


def test_sums_and_normalisation_behind_a_convolution_are_undone() -> None:
    torch.manual_seed(0)
    model = _Straight().double()
    x = torch.randn(12, 1, 6, 6, dtype=torch.float64)
    batch = Batch(args=(x,), labels=(x.mean((1, 2, 3)) > 0).double(), size=12)
    calibrate(model, batch)
    targets, found = _aligned_to_another(model, batch)

    assert 3 == len(targets)
    for a, b in zip(targets, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_last_convolution_of_a_block_is_the_one_that_is_solved() -> None:
    torch.manual_seed(0)
    model, batch = Residual(), images(64)
    calibrate(model, batch)
    cuts = find_cuts(model, batch)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with frozen(model):
        targets = [z + 0.1 for z in Relaxation(model, cuts, BCE).values(batch)]
    align(model, cuts, batch, targets, strength=1e-8)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    with frozen(model):
        found = Relaxation(model, cuts, BCE).values(batch)

    assert {
        f"blocks.{b}.second.{p}" for b in (0, 1) for p in ("weight", "bias")
    } == changed
    # A shift of every unit is what a bias reaches exactly.
    torch.testing.assert_close(found[1], targets[1], rtol=0, atol=1e-4)


def test_stages_without_a_closed_form_are_refused() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).tanh()
            x = self.b(x) * self.b(-x)
            return self.c(x)

    model, batch = Attending(), moons(20, 0)

    assert refusal(model, find_cuts(model, batch), batch) == (
        "the stage that ends at 'mul' cannot be aligned: no linear layer or "
        "convolution ends there"
    )


def test_shared_weights_are_refused() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    layers = [nn.Linear(2, 4), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 1)]
    model, batch = nn.Sequential(*layers), moons(20, 0)

    assert refusal(model, find_cuts(model, batch), batch).endswith(
        "cannot be aligned: it shares its weights with a stage before it"
    )


def test_the_readout_is_where_the_penalised_loss_is_flat() -> None:
    model, batch = chain(1, 6).double(), moons(100, 0, torch.float64)
    cuts = find_cuts(model, batch)
    final = refit_readout(model, cuts, BCE, batch, penalty=1e-2)
    h = model[:2](*batch.args).detach()
    size = (h - h.mean(0)).square().mean().sqrt()
    weight = (model[2].weight.detach() * size).requires_grad_()
    bias = (model[2].bias + model[2].weight @ h.mean(0)).detach().requires_grad_()
    output = F.linear((h - h.mean(0)) / size, weight, bias)
    loss = BCE.function(output, batch.labels)
    (loss + 0.005 * weight.square().sum()).backward()

    assert pytest.approx(loss.item(), rel=1e-9) == final
    assert float(weight.grad.abs().max()) < 1e-6
    assert float(bias.grad.abs().max()) < 1e-6


def test_the_readout_of_a_regression_is_least_squares() -> None:
    model, batch = chain(1, 4, nn.Tanh).double(), moons(60, 0, torch.float64)
    batch = Batch(args=batch.args, labels=torch.randn(60, 1).double(), size=60)
    refit_readout(model, find_cuts(model, batch), MSE, batch, penalty=0.0)
    h = model[:2](*batch.args).detach()
    design = torch.cat([h, torch.ones(60, 1).double()], 1)
    best = torch.linalg.lstsq(design, batch.labels).solution

    torch.testing.assert_close(model(*batch.args), design @ best, rtol=0, atol=1e-5)


def test_a_tail_behind_the_readout_changes_nothing() -> None:
    loss = Loss("bce", lambda p, y: F.binary_cross_entropy(p.flatten(), y.to(p.dtype)))
    batch = moons(60, 0, torch.float64)
    plain = chain(1, 4).double()
    tailed = nn.Sequential(*copy.deepcopy(plain), nn.Sigmoid())
    refit_readout(plain, find_cuts(plain, batch), BCE, batch, penalty=1e-2)
    refit_readout(tailed, find_cuts(tailed, batch), loss, batch, penalty=1e-2)

    torch.testing.assert_close(tailed[2].weight, plain[2].weight, rtol=1e-3, atol=1e-4)


def test_a_model_without_a_readout_is_refused() -> None:
    torch.manual_seed(0)
    last = nn.Linear(2, 2)
    model, batch = nn.Sequential(last, nn.Tanh(), last), moons(20, 0)

    with pytest.raises(CannotRewrite, match="there is no readout to refit"):
        refit_readout(model, find_cuts(model, batch), BCE, batch)


def test_the_gap_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (2, 0, 3, 1), strict=True):
            parameter.fill_(value)
    x = torch.tensor([[1.0], [2.0]]).double()
    batch = Batch(args=(x,), labels=torch.tensor([[0.0], [1.0]]).double(), size=2)
    relaxation = Relaxation(model, find_cuts(model, batch), MSE)
    gap = measure_gap(relaxation, batch, [torch.tensor([[0.0], [1.0]]).double()])

    # ẑ = (2, 4), z = (0, 1); relaxed output (1, 4), ordinary output (7, 13).
    assert pytest.approx((1 + 9) / 2) == gap.output
    assert pytest.approx((49 + 144) / 2) == gap.forward
    assert pytest.approx(96.5 - 5) == gap.gap
    assert pytest.approx(5 + (4 + 9) / 2) == gap.relaxed
    assert pytest.approx(math.sqrt(6.5) / 0.5) == gap.residual
    assert pytest.approx(1.0) == gap.label_share
