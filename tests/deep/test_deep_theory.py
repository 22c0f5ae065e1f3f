"""Mean-field theory: closed forms, and its prediction of real nets' gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.deep.nets import batch, deep, he, mlp, normal
from vgaudit.flow import TheoryFlow
from vgaudit.probe.deep.energy import add
from vgaudit.probe.deep.factors import meeting
from vgaudit.probe.deep.gauss import critical_gain, integrals
from vgaudit.probe.deep.live import live
from vgaudit.probe.deep.theory import Theory
from vgaudit.probe.forward import Setting
from vgaudit.probe.state import Twin


def theory(model: nn.Module, *shape: int) -> TheoryFlow:
    found = deep(model, batch(normal(*shape))).theory
    assert found is not None
    return found


def factor(found: TheoryFlow, *, free: bool = False) -> float:
    """Returns how far prediction and measurement are apart, as a factor ≥ 1."""
    predicted = found.predicted_free if free else found.predicted
    assert predicted is not None
    return float(10 ** abs(predicted - found.measured))


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.Tanh])
@pytest.mark.parametrize("depth", [5, 10, 20, 50])
@pytest.mark.parametrize("width", [64, 256])
def test_default_saturating_nets_within_a_factor_of_two(
    act: type[nn.Module], depth: int, width: int
) -> None:
    found = theory(mlp(depth, width, act), 32, width)

    assert found.until == ""
    assert factor(found) < 2
    assert factor(found, free=True) < 2


@pytest.mark.parametrize("depth", [5, 10, 20, 50])
def test_he_initialised_relu_within_a_factor_of_one_and_a_half(depth: int) -> None:
    found = theory(he(mlp(depth, 256, nn.ReLU)), 32, 256)

    assert factor(found) < 1.5
    assert found.chi == pytest.approx(1, abs=0.1)


def test_the_spread_is_what_seeds_differ_by() -> None:
    depth, width = 20, 32
    runs = [theory(mlp(depth, width, nn.Tanh, seed=s), 8, width) for s in range(30)]
    errors = torch.tensor([run.measured - run.predicted for run in runs])

    assert float(errors.std()) == pytest.approx(runs[0].spread, rel=0.5)
    # Without the term of finite width the mean would lie a spread² · ln 10 lower.
    assert abs(float(errors.mean())) < 3 * runs[0].spread / math.sqrt(len(runs))


def test_relu_in_a_gaussian_has_its_closed_form() -> None:
    found = integrals("relu", 0.0, 4.0)

    assert found.square == pytest.approx(2.0, rel=1e-4)
    assert found.slope_square == pytest.approx(0.5, rel=1e-3)
    assert found.mean == pytest.approx(2 / math.sqrt(2 * math.pi), rel=1e-4)
    assert critical_gain("relu", 1.0) == pytest.approx(2.0, rel=1e-3)


def test_erf_in_a_gaussian_has_its_closed_form() -> None:
    # Williams 1997: E erf(√q z)² = 2/π · asin(2q / (1 + 2q)); slope 4/π /√(1 + 4q).
    for q in (0.1, 1.0, 5.0):
        found = integrals("erf", 0.0, q)
        assert found.square == pytest.approx(
            2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-9
        )
        assert found.slope_square == pytest.approx(
            4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-9
        )


def test_exp_of_the_sum_of_logarithms() -> None:
    assert add(math.log(2), math.log(3)) == pytest.approx(math.log(5))
    assert add(-math.inf, 1.0) == 1.0
    assert add(-1e4, -1e4) == pytest.approx(-1e4 + math.log(2))
    assert math.isnan(add(math.nan, 0.0))


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_taps_that_meet_no_padding_are_counted_by_a_convolution_of_ones(
    padding: int, stride: int, dilation: int
) -> None:
    layer = nn.Conv1d(1, 1, 3, stride, padding, dilation, bias=False)
    nn.init.ones_(layer.weight)
    with torch.no_grad():
        out = layer(torch.ones(1, 1, 11))

    assert meeting(out.shape[-1], 11, 3, (stride, padding, dilation)) == int(out.sum())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.Conv2d(16, 16, 3, groups=16, padding=1),
        nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.GroupNorm(4, 16),
        nn.LayerNorm([16, 12, 12]),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.MaxPool2d(2),
        nn.Linear(12, 24),
        nn.ReLU(),
        nn.GELU(),
        nn.Softmax(-1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_factor_of_an_operation_is_the_mean_over_random_cotangents(
    layer: nn.Module,
) -> None:
    class Net(nn.Module):
        """A first layer, so that there is a weight, and the operation after it."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 1)
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.first(x))

    torch.manual_seed(0)
    model = Net()
    x = normal(8, 3, 12, 12)
    hidden = model.first(x).detach().requires_grad_()
    out = layer(hidden)
    ratios = []
    for seed in range(40):
        v = normal(*out.shape, seed=seed)
        (back,) = torch.autograd.grad(out, hidden, v, retain_graph=True)
        ratios.append(float(back.square().sum() / v.square().sum()))
    expected = sum(ratios) / len(ratios)

    assert _across(model, x) == pytest.approx(expected, rel=0.05)


def _across(model: nn.Module, x: torch.Tensor) -> float:
    """Returns the factor that the theory gives to everything after the first layer."""
    device = torch.device("cpu")
    twin = Twin(model, device=device, dtype=None)
    setting = Setting(
        model=model, twin=twin, loss=None, device=device, dtype=None, seed=0
    )
    with twin.standing_in(model), live(setting, batch(x)) as seen:
        return math.exp(Theory(seen).energy.at[seen.blueprint.plan.cuts[-1]])


def test_skips_add_up() -> None:
    class Block(nn.Module):
        """x + W x."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(512, 512, bias=False)
            nn.init.normal_(self.inner.weight, std=512**-0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(512, 512), *[Block() for _ in range(6)])
    found = theory(model, 4, 512)

    # Each block has χ = 1 + 1.
    assert 2 * found.predicted == pytest.approx(6 * math.log10(2), abs=0.05)
    assert found.measured == pytest.approx(found.predicted, abs=0.05)


def test_the_theory_says_where_it_ends() -> None:
    class Tagger(nn.Module):
        """A recurrent net between linear layers."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.rnn = nn.LSTM(8, 16, batch_first=True)
            self.hidden = nn.Linear(16, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.hidden(self.rnn(self.first(x))[0])))

    found = theory(Tagger(), 4, 7, 8)

    assert "lstm" in found.until
    assert found.covered < found.steps
    assert factor(found) < 2


def test_the_depth_scale_is_that_of_a_constant_chi() -> None:
    found = theory(mlp(20, 256, nn.Sigmoid), 16, 256)

    assert found.depth_scale == pytest.approx(-1 / math.log(found.chi))
    assert 0.24 < found.depth_scale < 0.27
