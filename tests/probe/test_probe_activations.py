"""Every known activation against autograd and a fine grid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.probe.scans import activation, layer, scan
from vgaudit.probe import activations

Function = Callable[[Tensor], Tensor]

CALLS: dict[str, list[Function]] = {
    "relu": [F.relu, torch.relu, Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True)],
    "relu6": [F.relu6, nn.ReLU6(), nn.ReLU6(inplace=True)],
    "leaky_relu": [F.leaky_relu, nn.LeakyReLU(40.0), nn.LeakyReLU(0.2),
                   nn.LeakyReLU(0.2, inplace=True)],
    "prelu": [nn.PReLU(), nn.PReLU(init=0.5)],
    "rrelu": [nn.RReLU().eval(), nn.RReLU(inplace=True).eval()],
    "elu": [F.elu, nn.ELU(), nn.ELU(inplace=True)],
    "selu": [F.selu, torch.selu, nn.SELU(), nn.SELU(inplace=True)],
    "celu": [F.celu, torch.celu, nn.CELU(2.0), nn.CELU(inplace=True)],
    "gelu": [F.gelu, nn.GELU(), nn.GELU("tanh")],
    "silu": [F.silu, nn.SiLU(), nn.SiLU(inplace=True)],
    "mish": [F.mish, nn.Mish(), nn.Mish(inplace=True)],
    "hardswish": [F.hardswish, nn.Hardswish(), nn.Hardswish(inplace=True)],
    "hardsigmoid": [F.hardsigmoid, nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True)],
    "hardtanh": [F.hardtanh, nn.Hardtanh(), nn.Hardtanh(inplace=True)],
    "sigmoid": [torch.sigmoid, F.sigmoid, Tensor.sigmoid, torch.special.expit,
                nn.Sigmoid()],
    "logsigmoid": [F.logsigmoid, nn.LogSigmoid()],
    "tanh": [torch.tanh, F.tanh, Tensor.tanh, nn.Tanh()],
    "softplus": [F.softplus, nn.Softplus(), nn.Softplus(beta=2)],
    "softsign": [F.softsign, nn.Softsign()],
    "tanhshrink": [F.tanhshrink, nn.Tanhshrink()],
    "hardshrink": [F.hardshrink, torch.hardshrink, nn.Hardshrink()],
    "softshrink": [F.softshrink, nn.Softshrink()],
    "threshold": [nn.Threshold(0.0, 0.0), nn.Threshold(0.0, 0.0, inplace=True)],
    "atan": [torch.atan, torch.arctan, Tensor.atan],
}  # fmt: skip
METHODS_IN_PLACE: dict[str, list[Function]] = {
    "relu": [torch.relu_, Tensor.relu_, F.relu_],
    "sigmoid": [torch.sigmoid_, Tensor.sigmoid_],
    "tanh": [torch.tanh_, Tensor.tanh_],
    "leaky_relu": [F.leaky_relu_],
    "elu": [F.elu_],
    "selu": [torch.selu_, F.selu_],
    "celu": [torch.celu_, F.celu_],
    "hardtanh": [F.hardtanh_],
    "atan": [Tensor.atan_, torch.atan_],
}
EVERY = [
    pytest.param(name, call, id=f"{name}-{place}")
    for name, calls in [*CALLS.items(), *METHODS_IN_PLACE.items()]
    for place, call in enumerate(calls)
]
# Points away from every kink; both rails of each bounded function are reached.
GRID = torch.linspace(-9.03, 9.07, 40, dtype=torch.float64).reshape(5, 8)


class Net(nn.Module):
    """Identity → the function → identity, so that the grid is what it sees."""

    def __init__(self, call: Function) -> None:
        super().__init__()
        self.first, self.last = (nn.Linear(8, 8, dtype=torch.float64) for _ in "ab")
        with torch.no_grad():
            for linear in (self.first, self.last):
                linear.weight.copy_(torch.eye(8))
                linear.bias.zero_()
        self.act = call

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


def slopes(call: Function, z: Tensor) -> Tensor:
    leaf = z.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(call(leaf.clone()).sum(), leaf)
    return slope


@pytest.mark.parametrize(("name", "call"), EVERY)
def test_each_activation_is_seen_with_its_statistics(name: str, call: Function) -> None:
    net = Net(call.double() if isinstance(call, nn.Module) else call)
    flow = scan(net, GRID, mode="eval" if name == "rrelu" else "train")
    path = "act" if isinstance(call, nn.Module) else f"{name}#1"
    seen = activation(flow, path)

    out, slope = call(GRID.clone()).detach(), slopes(call, GRID)
    assert (seen.kind, seen.elements, seen.samples) == (name, 40, 5)
    assert seen.input.mean == pytest.approx(float(GRID.mean()), abs=1e-12)
    assert seen.input.std == pytest.approx(float(GRID.std(correction=0)), abs=1e-12)
    assert (seen.input.min, seen.input.max) == (float(GRID.min()), float(GRID.max()))
    assert seen.output.mean == pytest.approx(float(out.mean()), abs=1e-12)
    assert seen.output.std == pytest.approx(float(out.std(correction=0)), abs=1e-12)
    assert seen.slope_mean_square == pytest.approx(float((slope**2).mean()), rel=1e-9)
    flat = slope.abs() < 0.05 * seen.slope_max
    assert seen.saturated == pytest.approx(float(flat.double().mean()))
    assert (seen.units, seen.dead_units) == (
        8,
        int((slope.abs().amax(0) == 0).sum()),
    )


@pytest.mark.parametrize(("name", "call"), EVERY)
def test_the_gain_of_an_activation_is_that_of_its_slopes(
    name: str, call: Function
) -> None:
    """With identity weights δ is the cotangent; below it, δ · φ′(z)."""
    net = Net(call.double() if isinstance(call, nn.Module) else call)
    x = GRID / 3
    flow = scan(net, x, mode="eval" if name == "rrelu" else "train")
    path = "act" if isinstance(call, nn.Module) else f"{name}#1"

    from vgaudit.probe.step import cotangent

    delta = cotangent(net(x), 0, 0, 0)
    expected = (delta * slopes(call, x)).norm() / delta.norm()
    assert layer(flow, path).gain is not None
    assert layer(flow, path).gain.value == pytest.approx(
        math.log10(float(expected)), abs=1e-9
    )


KNOWN_CALLS = {name: calls[-1] for name, calls in CALLS.items()} | {
    "rrelu": nn.RReLU().eval(),
    "prelu": F.leaky_relu,
    "celu": F.celu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "square": torch.square,
    "exp": torch.exp,
    "clamp": lambda z: z.clamp(-1.0, 1.0),
}


def test_every_known_activation_is_tested() -> None:
    assert set(KNOWN_CALLS) == set(activations.KNOWN)


@pytest.mark.parametrize("name", activations.KNOWN)
def test_the_largest_slope_and_its_place_are_right(name: str) -> None:
    known = activations.KNOWN[name]
    z = torch.linspace(-20.0, 20.0, 400_001, dtype=torch.float64)
    slope = slopes(KNOWN_CALLS[name], z).abs()
    top = float(slope.max())

    if math.isinf(known.slope_max):
        assert top > 30
        return
    # Some reach their largest slope only in the limit.
    assert known.slope_max == pytest.approx(top, rel=1e-3)
    if known.bounded:
        at = slopes(KNOWN_CALLS[name], torch.tensor(known.steepest).double())
        assert abs(float(at)) == pytest.approx(top, rel=1e-3)
        out = KNOWN_CALLS[name](torch.tensor([-1e4, 1e4], dtype=torch.float64))
        assert bool(out.isfinite().all())
        assert float(slope[0]) < 0.05 * top
        assert float(slope[-1]) < 0.05 * top


@pytest.mark.parametrize(
    "name", [name for name, known in activations.KNOWN.items() if known.slope]
)
def test_closed_forms_of_the_slope_are_autograds(name: str) -> None:
    known = activations.KNOWN[name]
    assert known.slope is not None
    call = KNOWN_CALLS[name]
    z = torch.linspace(-30.0, 30.0, 100_001, dtype=torch.float64)

    torch.testing.assert_close(
        known.slope(z, call(z.clone())), slopes(call, z), rtol=1e-12, atol=1e-15
    )


# ------------------------------------------------------------ rails


@pytest.mark.parametrize(
    ("call", "low", "high"),
    [
        (nn.Sigmoid(), -9.0, 9.0),
        (nn.Tanh(), -9.0, 9.0),
        (nn.Hardtanh(), -2.0, 2.0),
        (nn.Hardsigmoid(), -4.0, 4.0),
        (nn.Softsign(), -9.0, 9.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_both_rails_are_told_apart(call: nn.Module, low: float, high: float) -> None:
    z = torch.full((5, 8), 0.5, dtype=torch.float64)
    z[:2] = low
    z[4] = high
    seen = activation(scan(Net(call), z), "act")

    assert seen.bounded
    assert (seen.saturated_low, seen.saturated_high) == (2 / 5, 1 / 5)


def test_relu6_has_two_flat_sides_and_one_rail() -> None:
    """Below zero it is ReLU, where half of all values belong."""
    z = torch.full((5, 8), 0.5, dtype=torch.float64)
    z[:2], z[4] = -1.0, 7.0
    for call in (nn.ReLU6(), nn.Hardtanh(0.0, 6.0)):
        seen = activation(scan(Net(call), z), "act")

        assert seen.kind == "relu6"
        assert not seen.bounded
        assert (seen.saturated_low, seen.saturated_high) == (2 / 5, 1 / 5)


def test_a_relu_at_zero_is_on_its_low_side() -> None:
    z = torch.tensor([[0.0] * 4 + [1.0] * 4] * 3, dtype=torch.float64)
    seen = activation(scan(Net(nn.ReLU()), z), "act")

    assert (seen.saturated_low, seen.saturated_high) == (0.5, 0.0)
    assert not seen.bounded
    assert (seen.units, seen.dead_units) == (8, 4)


@pytest.mark.parametrize(
    ("call", "slope_max"),
    [
        (nn.ELU(alpha=3.0), 3.0),
        (nn.LeakyReLU(negative_slope=2.0), 2.0),
        (nn.Hardtanh(-0.2, 0.2), 1.0),
        (nn.PReLU(init=4.0), 4.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_largest_slope_follows_the_arguments(
    call: nn.Module, slope_max: float
) -> None:
    seen = activation(scan(Net(call.double()), GRID / 9), "act")

    assert seen.slope_max == pytest.approx(slope_max, rel=0.05)


def test_slopes_of_half_precision_are_taken_in_float32() -> None:
    net = nn.Sequential(
        OrderedDict(first=nn.Linear(8, 8), act=nn.Tanh(), last=nn.Linear(8, 8))
    )
    with torch.no_grad():
        net.first.weight.copy_(torch.eye(8))
        net.first.bias.zero_()
    flow = scan(net.bfloat16(), GRID.bfloat16(), dtype="bfloat16")
    seen = activation(flow, "act")

    z = GRID.bfloat16().double()
    assert seen.input.mean == pytest.approx(float(z.mean()), abs=1e-6)
    assert seen.input.std == pytest.approx(float(z.std(correction=0)), rel=1e-6)
    assert seen.saturated == pytest.approx(
        float(((1 - z.tanh() ** 2) < 0.05).double().mean()), abs=0.03
    )
