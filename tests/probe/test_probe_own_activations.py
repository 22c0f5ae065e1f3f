"""Activations that a user has written: recognised, measured, run without a trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import activation, batch, layer, noise, scan, scan_all
from vgaudit.flow import GradientFlow


def kinds(flow: GradientFlow) -> list[str]:
    """Returns the kinds of all activations, in forward order."""
    return [r.activation.kind for r in flow.layers if r.activation is not None]


def around(middle: Callable[[Tensor], Tensor]) -> nn.Module:
    """Returns linear → ``middle`` → linear, seeded."""
    torch.manual_seed(0)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Linear(6, 6), middle
            self.last = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.first(x)))

    return Around()


# ------------------------------------------------------------ a user's own


class Swish(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(z)


class LogMish(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.tanh(torch.log1p(torch.exp(z)))


class Clipped(nn.Module):
    """ReLU and tanh-like by clamping: both are ordinary functions elsewhere."""

    def forward(self, z: Tensor) -> Tensor:
        return z.clamp(-1.0, 1.0)


class Written(torch.autograd.Function):
    """ReLU with a backward pass written by hand."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (z,) = ctx.saved_tensors
        return grad * (z > 0)


class WrittenReLU(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return Written.apply(z)


@pytest.mark.parametrize(
    ("own", "known"),
    [(Swish(), nn.SiLU()), (LogMish(), nn.Mish()), (Clipped(), nn.Hardtanh()),
     (WrittenReLU(), nn.ReLU())],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_users_own_activation_measures_as_the_known_one(
    own: nn.Module, known: nn.Module
) -> None:
    x = 3 * noise(7, 6)
    mine, its = scan(around(own), x), scan(around(known), x)
    seen, expected = activation(mine, "middle"), activation(its, "middle")

    assert seen.kind == type(own).__name__
    assert layer(mine, "middle").type == type(own).__name__
    assert kinds(mine) == [type(own).__name__]
    for field in ("elements", "samples", "units", "dead_units", "bounded"):
        assert getattr(seen, field) == getattr(expected, field), field
    for field in ("input", "output"):
        mine_, its_ = getattr(seen, field), getattr(expected, field)
        assert mine_.mean == pytest.approx(its_.mean, abs=1e-6)
        assert mine_.std == pytest.approx(its_.std, abs=1e-6)
    assert seen.slope_mean_square == pytest.approx(expected.slope_mean_square, rel=1e-5)
    assert seen.slope_max <= expected.slope_max + 1e-6
    gain = layer(mine, "middle").gain
    assert gain is not None
    assert gain.value == pytest.approx(layer(its, "middle").gain.value, abs=1e-6)
    assert mine.attenuation.value == pytest.approx(its.attenuation.value, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_users_own_activation_is_recognised_in_half_precision(
    dtype: torch.dtype,
) -> None:
    net = around(LogMish()).to(dtype)

    assert kinds(scan(net, noise(7, 6))) == ["LogMish"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_users_own_sigmoid_is_recognised_on_few_elements(size: int) -> None:
    class Sigmoid(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 1 / (1 + torch.exp(-z))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(3, 2), Sigmoid()
            self.last = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.first(x)))

    flow = scan(Net(), noise(size, 3))

    assert kinds(flow) == ["Sigmoid"]
    assert activation(flow, "act").bounded
    assert activation(flow, "act").slope_max == pytest.approx(0.25, rel=0.05)


def test_a_users_own_tanh_is_saturated_where_all_of_it_is() -> None:
    class Squash(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 1 - 2 / (1 + torch.exp(2 * z))

    net = around(Squash())
    with torch.no_grad():
        net.first.weight.zero_()
        net.first.bias.copy_(torch.tensor([-9.0, -9.0, 9.0, 9.0, 9.0, 9.0]))
    seen = activation(scan(net, noise(5, 6)), "middle")

    assert seen.bounded
    assert seen.slope_max == pytest.approx(1.0, rel=0.01)
    assert seen.saturated_low == pytest.approx(1 / 3)
    assert seen.saturated_high == pytest.approx(2 / 3)


def test_a_users_own_square_has_no_largest_slope() -> None:
    class SquaredReLU(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.clamp(min=0) ** 2

    seen = activation(scan(around(SquaredReLU()), noise(5, 6)), "middle")

    assert not seen.bounded
    assert seen.slope_max == pytest.approx(2 * seen.input.max, rel=1e-5)


def test_inside_a_users_own_activation_nothing_is_counted_twice() -> None:
    flow = scan_all(around(Swish()), [batch(noise(4, 6, seed=s)) for s in range(3)])

    assert kinds(flow) == ["Swish"]
    assert activation(flow, "middle").samples == 12


def test_a_written_function_outside_of_a_module_hides_nothing_behind_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = Written.apply(self.first(Written.apply(x)))
            return torch.sigmoid(self.last(x))

    flow = scan(Net(), noise(4, 6))

    assert kinds(flow) == ["sigmoid"]
    assert [r.path for r in flow.layers if r.weighted] == ["first", "last"]
    assert flow.weight_layers == 2


def test_data_that_comes_back_from_numpy_is_data() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.from_numpy(x.numpy() * 2).to(x.dtype)
            return self.last(torch.tanh(self.first(x)))

    flow = scan(Net(), noise(4, 6))

    assert kinds(flow) == ["tanh"]
    assert flow.weight_layers == 2
    assert layer(flow, "first").depth == 1
