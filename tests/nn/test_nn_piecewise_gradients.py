"""Gradients of PiecewiseLinear: closed forms, autograd, finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nn.oracles import lines_by_hats
from vgaudit.nn import Grid, PiecewiseLinear

EXACT = 1e-11

GRIDS = {
    "uniform": Grid.uniform(),
    "off-centre": Grid.uniform(-1.3, 4.1, 8),
    "given": Grid.at([-3.0, -1.0, 0.0, 0.5, 2.0]),
    "per-channel": Grid.at(torch.tensor([[-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])),
    "ragged": Grid.at(torch.tensor([[-2.0, 0.5, 2.0], [-1.0, 0.0, 3.0]])),
    "close": Grid.at([-4.0, 0.0, 1e-3, 4.0]),
}


def random_layer(grid: Grid, channels: int | None = 2, dim: int = 1) -> PiecewiseLinear:
    layer = PiecewiseLinear(channels, grid=grid, channel_dim=dim).double()
    nn.init.normal_(layer.values)
    return layer


@pytest.mark.parametrize(
    "shape",
    [(40, 2), (9, 2, 7, 5), (11, 2, 200, 200), (2, 2, 400, 500), (1, 2, 600, 500)],
)
@pytest.mark.parametrize("grid", GRIDS)
def test_gradients_equal_autograd_through_hat_functions(grid, shape) -> None:
    """Inside the hinges the function is Σ a_m·hat_m(x), in plain operations."""
    layer = random_layer(GRIDS[grid])
    ends = layer.hinges[:, 0].max().item(), layer.hinges[:, -1].min().item()
    x = torch.empty(shape).uniform_(*ends).requires_grad_()
    direction = torch.randn(shape)
    found = torch.autograd.grad(layer(x), (x, layer.values), direction)

    values = layer.values.detach().requires_grad_()
    rows = [
        lines_by_hats(x[:, c], layer.hinges[c % len(layer.hinges)], values[c])
        for c in range(2)
    ]
    wanted = torch.autograd.grad(torch.stack(rows, 1), (x, values), direction)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max().item() < EXACT * max(1, b.abs().max().item())


@pytest.mark.parametrize("outside", ["linear", "clamp"])
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("grid", ["uniform", "off-centre", "given"])
def test_finite_differences_agree_once_and_twice(grid, channels, outside) -> None:
    layer = random_layer(Grid(GRIDS[grid].positions, outside), channels)
    x = (3 * torch.randn(6, 2, 3)).requires_grad_()

    def function(x, values):
        return torch.func.functional_call(layer, {"values": values}, (x,))

    assert gradcheck(function, (x, layer.values))
    assert gradgradcheck(function, (x, layer.values))


@pytest.mark.parametrize("outside", ["linear", "clamp"])
def test_hinge_has_the_slope_on_its_right(outside) -> None:
    for grid in (Grid.uniform(-6, 6, 9), GRIDS["given"], GRIDS["close"]):
        layer = random_layer(Grid(grid.positions, outside), None)
        x = layer.hinges[0].clone().requires_grad_()
        layer(x).sum().backward()
        slopes = layer.slopes()[0]
        last = slopes[-1:] if outside == "linear" else torch.zeros(1)

        assert (x.grad - torch.cat((slopes, last))).abs().max().item() < EXACT


def test_sums_of_the_gradient_over_hinges_are_sums_over_elements() -> None:
    """The hat functions add up to 1, inside and (continued linearly) outside."""
    layer = random_layer(GRIDS["uniform"])
    x = 5 * torch.randn(64, 2, 11)
    direction = torch.randn_like(x)
    layer(x).backward(direction)

    wanted = direction.sum((0, 2))
    assert (layer.values.grad.sum(1) - wanted).abs().max().item() < EXACT


def test_first_moment_of_the_gradient_is_the_inputs() -> None:
    """Σ_m ns_m·hat_m(x) = x: lines reproduce the identity."""
    layer = random_layer(GRIDS["given"])
    x = 5 * torch.randn(64, 2)
    direction = torch.randn_like(x)
    layer(x).backward(direction)

    wanted = (direction * x).sum(0)
    found = (layer.values.grad * layer.hinges).sum(1)
    assert (found - wanted).abs().max().item() < EXACT


@pytest.mark.parametrize("channels", [None, 4])
def test_float32_sums_over_many_elements_stay_accurate(channels) -> None:
    """Two million terms: lanes and float64 over blocks keep 6 digits."""
    x = torch.randn(64, 4, 96, 96).float()
    direction = torch.rand_like(x)
    layer = random_layer(Grid.uniform(), channels).float()
    layer(x).backward(direction)
    exact = random_layer(Grid.uniform(), channels)
    exact(x.double()).backward(direction.double())

    error = (layer.values.grad - exact.values.grad).abs()
    assert (error / exact.values.grad.abs()).max().item() < 1e-5


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_gradients_repeat_to_the_last_bit(threads) -> None:
    layer = random_layer(Grid.uniform()).float()
    x = torch.randn(50, 2, 64, 64).float()
    found = []
    for _ in range(2):
        layer.zero_grad()
        layer(x).square().mean().backward()
        found.append(layer.values.grad.clone())

    assert torch.equal(*found)


@pytest.mark.parametrize("hinges", [9, 129])
def test_backward_saves_the_input_and_the_values_alone(hinges) -> None:
    layer = PiecewiseLinear(8, grid=Grid.uniform(-4, 4, hinges)).float()
    x = torch.randn(16, 8, 10, 10).float().requires_grad_()
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)

    pointers = {tensor.data_ptr() for tensor in saved}
    assert {x.data_ptr(), layer.values.data_ptr()} == pointers


class NewStorages(TorchDispatchMode):
    """Collects the size in bytes of every storage that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.sizes[storage.data_ptr()] = storage.nbytes()
        return result


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("shape", [(64, 8, 64, 64), (1, 2, 1024, 1024)])
def test_apart_from_results_memory_does_not_grow_with_the_input(shape, threads) -> None:
    layer = PiecewiseLinear(shape[1], start="tanh").float()
    x = torch.randn(shape).float().requires_grad_()
    direction = torch.randn(shape).float()
    results = {x.data_ptr(), direction.data_ptr()}
    with NewStorages() as new:
        y = layer(x)
        grads = torch.autograd.grad(y, (x, layer.values), direction)
    results |= {y.data_ptr(), grads[0].data_ptr()}
    others = [size for place, size in new.sizes.items() if place not in results]

    # One block, as pairs of float32.
    assert max(others) <= 8 * 2**18 < x.nbytes


def test_frozen_values_get_no_gradient_and_pass_it_on() -> None:
    layer = random_layer(GRIDS["uniform"])
    x = torch.randn(30, 2).requires_grad_()
    (wanted,) = torch.autograd.grad(layer(x).sum(), x)
    layer.values.requires_grad_(False)
    layer(x).sum().backward()

    assert torch.equal(x.grad, wanted)
    assert layer.values.grad is None


def test_derivatives_by_torch_func() -> None:
    """vmap, jacrev, jacfwd and jvp give what a loop over autograd gives."""
    layer = random_layer(GRIDS["per-channel"])
    x = torch.randn(3, 2)
    wanted = torch.autograd.functional.jacobian(layer, x)
    vectorized = torch.autograd.functional.jacobian(layer, x, vectorize=True)

    assert torch.allclose(vectorized, wanted)
    assert torch.allclose(torch.func.jacrev(layer)(x), wanted)
    assert torch.allclose(torch.func.jacfwd(layer)(x), wanted)
    assert torch.allclose(torch.func.vmap(layer)(x.expand(4, 3, 2)), layer(x))


def test_forward_mode_without_torch_func() -> None:
    from torch.autograd import forward_ad

    layer = random_layer(GRIDS["uniform"])
    x, tangent = torch.randn(5, 2), torch.randn(5, 2)
    with forward_ad.dual_level():
        dual = layer(forward_ad.make_dual(x, tangent))
        found = forward_ad.unpack_dual(dual).tangent
    wanted = torch.func.jvp(layer, (x,), (tangent,))[1]

    assert torch.allclose(found, wanted)
