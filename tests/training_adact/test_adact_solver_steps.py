"""The three steps against autograd, lstsq, line scans and laws; float64 throughout."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vgaudit.nn import Grid, PiecewiseLinear
from vgaudit.training.adact import OneHidden, Patterns, steps
from vgaudit.training.adact.interpolation import Interpolation
from vgaudit.training.adact.least_squares import solve


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(
    *, bypass: bool = True, shared: bool = False, outside: str = "linear"
) -> OneHidden:
    """4 inputs, 6 hidden units with values off every known function, 3 outputs."""
    grid = Grid.uniform(-2.0, 2.0, 5, outside=outside)
    activation = PiecewiseLinear(None if shared else 6, grid=grid)
    with torch.no_grad():
        activation.values.add_(0.3 * torch.randn_like(activation.values))
    straight = nn.Linear(4, 3, bias=False) if bypass else None
    return OneHidden(nn.Linear(4, 6), activation, nn.Linear(6, 3), straight)


def patterns(count: int = 200, *, block: int = 64) -> Patterns:
    x = torch.randn(count, 4)
    target = torch.stack((x[:, 0] * x[:, 1], x[:, 2].sin(), x.sum(1).tanh()), 1)
    return Patterns(2 * x, target + 0.1 * torch.randn(count, 3), block)


def mean_square(net: nn.Module, data: Patterns) -> Tensor:
    """The loss as the page states it, in one line."""
    return (data.targets - net(data.inputs)).square().sum() / len(data.inputs)


VARIANTS = [
    pytest.param({}, id="bypass"),
    pytest.param({"bypass": False}, id="no bypass"),
    pytest.param({"shared": True}, id="one activation"),
    pytest.param({"outside": "clamp"}, id="clamped"),
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_interpolation_is_the_activation_and_its_slope(variant: dict) -> None:
    net = network(**variant)
    z = (3 * torch.randn(300, 6)).requires_grad_()
    expected = net.activation(z)
    place = Interpolation.at(z.detach(), net.activation)
    torch.testing.assert_close(place.values(net.activation.values), expected)
    (slope,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(place.slopes(net.activation.values), slope)


def test_interpolation_equals_numpy_interp_when_clamped() -> None:
    net = network(outside="clamp")
    z = 3 * torch.randn(300, 6)
    found = Interpolation.at(z, net.activation).values(net.activation.values)
    values, hinges = net.activation.values.detach(), net.activation.hinges[0]
    for unit in range(6):
        expected = np.interp(z[:, unit].numpy(), hinges.numpy(), values[unit].numpy())
        np.testing.assert_allclose(
            found[:, unit].detach().numpy(), expected, atol=1e-14
        )


def test_interpolation_weights_sum_to_one() -> None:
    net = network()
    place = Interpolation.at(3 * torch.randn(300, 6), net.activation)
    weights = torch.randn(300, 6)
    torch.testing.assert_close(place.spread(weights).sum(1), weights.sum(0))


def test_a_hinge_belongs_to_the_segment_on_its_right() -> None:
    net = network()
    at_hinge = net.activation.hinges[0, 2].expand(1, 6)
    place = Interpolation.at(at_hinge, net.activation)
    assert place.left.tolist() == [[2] * 6]
    assert place.share.tolist() == [[0.0] * 6]


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_block_size(variant: dict) -> None:
    net, data = network(**variant), patterns()
    assert mean_square(net, data).item() == pytest.approx(steps.loss(net, data), 1e-13)
    whole = Patterns(data.inputs, data.targets, block=10_000)
    for function in (steps.hinge_direction, steps.output_weights):
        torch.testing.assert_close(function(net, data), function(net, whole))
    a, b = steps.factor_system(net, data), steps.factor_system(net, whole)
    torch.testing.assert_close(a.hessian, b.hessian)
    torch.testing.assert_close(a.slope, b.slope)


@pytest.mark.parametrize("variant", VARIANTS)
def test_directions_are_minus_autograd(variant: dict) -> None:
    net, data = network(**variant), patterns()
    mean_square(net, data).backward()
    system = steps.factor_system(net, data)
    torch.testing.assert_close(system.direction[:, 0], -net.hidden.bias.grad)
    torch.testing.assert_close(system.direction[:, 1:], -net.hidden.weight.grad)
    torch.testing.assert_close(
        steps.hinge_direction(net, data), -net.activation.values.grad
    )


def moved_loss(net: OneHidden, data: Patterns, direction: Tensor) -> object:
    """The loss as a function of the learning factors, for torch.func."""

    def function(factors: Tensor) -> Tensor:
        step = factors.unsqueeze(1) * direction
        weight, bias = net.hidden.weight + step[:, 1:], net.hidden.bias + step[:, 0]
        hidden = net.activation(data.inputs @ weight.t() + bias)
        y = net.output(hidden) + net.bypass(data.inputs)
        return (data.targets - y).square().sum() / len(data.inputs)

    return function


def test_molf_system_is_gradient_and_hessian_by_the_factors() -> None:
    net, data = network(), patterns()
    system = steps.factor_system(net, data)
    function = moved_loss(net, data, system.direction)
    zero = torch.zeros(6)
    torch.testing.assert_close(system.slope, -torch.func.grad(function)(zero))
    torch.testing.assert_close(system.hessian, torch.func.hessian(function)(zero))


@pytest.mark.parametrize("seed", range(5))
def test_molf_hessian_is_positive_semidefinite(seed: int) -> None:
    torch.manual_seed(seed)
    net, data = network(), patterns(count=4)
    hessian = steps.factor_system(net, data).hessian
    values = torch.linalg.eigvalsh(hessian)
    assert float(values.min()) >= -1e-14 * float(values.max())


def test_molf_moves_each_unit_by_its_own_factor() -> None:
    net, data = network(), patterns()
    before = copy.deepcopy(net)
    system = steps.factor_system(net, data)
    factors = torch.arange(6.0)
    steps.move_hidden(net, system.direction, factors)
    change = net.hidden.weight - before.hidden.weight
    torch.testing.assert_close(change, factors[:, None] * system.direction[:, 1:])
    torch.testing.assert_close(
        net.hidden.bias - before.hidden.bias, factors * system.direction[:, 0]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_learning_factor_is_the_minimum_of_a_line_scan(variant: dict) -> None:
    net, data = network(**variant), patterns()
    direction = steps.hinge_direction(net, data)
    factor = steps.learning_factor(net, data, direction)
    start = net.activation.values.detach().clone()
    line = torch.linspace(0, 2 * factor, 2001)
    losses = []
    for z in line:
        net.activation.values.data = start + z * direction
        losses.append(mean_square(net, data).item())
    assert int(np.argmin(losses)) == 1000
    slope = float(direction.square().sum())
    assert losses[0] - losses[1000] == pytest.approx(factor * slope / 2, 1e-10)


def test_published_factor_is_another_one() -> None:
    """z = ∂E/∂z, as printed, is not the minimum: it lacks the curvature."""
    net, data = network(), patterns()
    direction = steps.hinge_direction(net, data)
    printed = float(direction.square().sum())
    assert printed != pytest.approx(steps.learning_factor(net, data, direction), 0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_owo_residual_is_orthogonal_to_the_basis(variant: dict) -> None:
    net, data = network(**variant), patterns()
    steps.set_output(net, steps.output_weights(net, data))
    residual = data.targets - net(data.inputs)
    features = steps.basis(net, data.inputs)
    assert float((features.t() @ residual).abs().max()) < 1e-10
    expected = torch.linalg.lstsq(features, data.targets).solution
    torch.testing.assert_close(features @ expected, net(data.inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_owo_writes_what_the_basis_weighs(bias: bool) -> None:
    made = network()
    net = OneHidden(
        made.hidden, made.activation, nn.Linear(6, 3, bias=bias), made.bypass
    )
    data = patterns()
    weights = torch.randn(steps.basis(net, data.inputs).shape[1], 3)
    steps.set_output(net, weights)
    torch.testing.assert_close(
        net(data.inputs), steps.basis(net, data.inputs) @ weights
    )


def test_solution_of_a_full_rank_system() -> None:
    root = torch.randn(30, 8)
    matrix, right = root.t() @ root, torch.randn(8, 2)
    torch.testing.assert_close(solve(matrix, right), torch.linalg.solve(matrix, right))


def test_dependent_and_dead_columns_are_left_out() -> None:
    root = torch.randn(30, 5)
    root = torch.cat((root, root[:, :1], torch.zeros(30, 1)), 1)
    target = torch.randn(30, 2)
    found = solve(root.t() @ root, root.t() @ target)
    expected = torch.linalg.lstsq(root[:, :5], target).solution
    torch.testing.assert_close(root @ found, root[:, :5] @ expected)
    assert float(found[6].abs().max()) == 0.0
    torch.testing.assert_close(found[0], found[5])


def test_solution_does_not_depend_on_the_units_of_a_column() -> None:
    root, target = torch.randn(30, 4), torch.randn(30)
    units = torch.tensor([1.0, 1e-9, 1e6, 1.0])
    plain = solve(root.t() @ root, root.t() @ target)
    scaled = root * units
    found = solve(scaled.t() @ scaled, scaled.t() @ target)
    torch.testing.assert_close(found * units, plain, rtol=1e-7, atol=1e-9)
