"""The probe against closed forms, in float64 to the last digits."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from fixtures import models
from tests.probe.scans import (
    activation,
    decades,
    l2,
    layer,
    parameters,
    scan,
    scan_all,
)
from tests.probe.scans import batch as one_batch
from vgaudit.data.batch import Loss
from vgaudit.probe.step import cotangent


def exact(value: float) -> object:
    """Compares to the last digits of float64."""
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def scaled_identity(weights: list[float], width: int = 5) -> nn.Sequential:
    """A chain of linear layers, each w · I, without bias."""
    chain = nn.Sequential()
    for weight in weights:
        linear = nn.Linear(width, width, bias=False, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight * torch.eye(width, dtype=torch.float64))
        chain.append(linear)
    return chain


def constant(weight: float, bias: float = 0.0, width: int = 4) -> nn.Linear:
    """Returns a linear layer of weight · I and one bias for all, in float64."""
    linear = nn.Linear(width, width, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(weight * torch.eye(width, dtype=torch.float64))
        linear.bias.fill_(bias)
    return linear


# ------------------------------------------------------------ chains


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0, 1e-3])
@pytest.mark.parametrize("depth", [2, 6, 40])
def test_a_chain_of_scaled_identities_attenuates_by_its_weight(
    weight: float, depth: int
) -> None:
    flow = scan(scaled_identity([weight] * depth), noise(4, 5))

    for place in range(depth):
        row = layer(flow, str(place))
        above = depth - 1 - place
        assert row.depth == above
        assert row.trunk
        assert row.weighted
        assert row.attenuation.value == exact(above * math.log10(weight))
        if place:
            assert row.gain.value == exact(math.log10(weight))
    assert flow.weight_layers == depth
    assert flow.attenuation.value == exact((depth - 1) * math.log10(weight))
    assert flow.decades_per_layer == exact(math.log10(weight))


def test_the_budget_of_a_chain_sums_to_the_whole() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 9), nn.LayerNorm(9), nn.GELU(),
        nn.Linear(9, 6), nn.Sigmoid(), nn.Linear(6, 3),
    )  # fmt: skip
    given = [one_batch(noise(4, 6, seed=seed)) for seed in range(3)]
    flow = scan_all(net, given, dtype="float64")

    assert sum(flow.budget().values()) == pytest.approx(
        flow.attenuation.value, abs=1e-9
    )
    assert set(flow.budget()) == {"weights", "activation", "normalization"}
    gains = [step.gain.value for step in flow.trunk]
    ends = [step.attenuation.value for step in flow.trunk]
    for place in range(len(gains) - 1):
        assert ends[place] - ends[place + 1] == pytest.approx(gains[place], abs=1e-9)


def test_each_step_of_the_trunk_has_its_gain_and_cause() -> None:
    net = nn.Sequential(
        OrderedDict(
            first=constant(1.0),
            act=nn.Sigmoid(),
            last=constant(0.01),
        )
    )
    flow = scan(net, torch.zeros(3, 4, dtype=torch.float64))

    steps = {step.name: step for step in flow.trunk}
    assert list(steps) == ["act", "last"]
    assert steps["act"].cause == "activation"
    assert steps["act"].gain.value == exact(math.log10(0.25))
    assert steps["last"].cause == "weights"
    assert steps["last"].gain.value == exact(-2.0)
    assert steps["act"].attenuation.value == exact(-2.0 + math.log10(0.25))
    assert flow.worst_step is not None
    assert flow.worst_step.name == "last"
    assert flow.budget() == {
        "activation": exact(math.log10(0.25)),
        "weights": exact(-2.0),
    }


def test_a_normalised_chain_keeps_its_norm() -> None:
    """An orthogonal weight turns δ and does not change its length."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(12))).double()
    for linear in net:
        nn.init.orthogonal_(linear.weight)
    flow = scan(net, noise(3, 8))

    assert flow.attenuation.value == pytest.approx(0.0, abs=1e-12)
    assert all(abs(step.gain.value) < 1e-12 for step in flow.trunk)


@pytest.mark.parametrize(
    ("act", "slope"),
    [
        (nn.Sigmoid(), 0.25),
        (nn.Tanh(), 1.0),
        (nn.GELU(), 0.5),
        (nn.SiLU(), 0.5),
        (nn.Softplus(), 0.5),
        (nn.Softsign(), 1.0),
        (nn.LogSigmoid(), 0.5),
        (nn.Hardswish(), 0.5),
        (nn.Mish(), 0.6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_activation_at_zero_multiplies_by_its_slope(
    act: nn.Module, slope: float
) -> None:
    net = nn.Sequential(
        OrderedDict(
            first=constant(1.0),
            act=act,
            last=constant(1.0),
        )
    )
    flow = scan(net, torch.zeros(3, 4, dtype=torch.float64))

    assert layer(flow, "act").gain.value == exact(math.log10(slope))
    assert flow.attenuation.value == exact(math.log10(slope))
    assert activation(flow, "act").slope_mean_square == exact(slope**2)


def test_sigmoids_and_weights_share_the_budget_of_a_deep_net() -> None:
    net = nn.Sequential()
    for _ in range(7):
        net.append(constant(0.1, bias=-0.05))
        net.append(nn.Sigmoid())
    net.append(constant(0.1))
    # 0.1 · 1/2 − 0.05 = 0: every sigmoid but the first stands at 0.
    flow = scan(net, torch.full((2, 4), 0.5, dtype=torch.float64))

    assert flow.budget() == {
        "weights": exact(-7.0),
        "activation": exact(7 * math.log10(0.25)),
    }


# ------------------------------------------------------------ statistics


def test_moments_slopes_and_rails_of_known_values() -> None:
    z = torch.tensor(
        [[-6.0, -1.0, 0.0, 1.0], [6.0, 6.0, -6.0, -6.0]], dtype=torch.float64
    )
    net = nn.Sequential(
        OrderedDict(
            first=constant(1.0),
            act=nn.Tanh(),
            last=constant(1.0),
        )
    )
    seen = activation(scan(net, z), "act")

    slope = 1 - z.tanh() ** 2
    assert (seen.kind, seen.elements, seen.samples) == ("tanh", 8, 2)
    assert seen.input.mean == exact(float(z.mean()))
    assert seen.input.std == exact(float(z.std(correction=0)))
    assert (seen.input.min, seen.input.max) == (-6.0, 6.0)
    assert seen.output.mean == exact(float(z.tanh().mean()))
    assert seen.output.std == exact(float(z.tanh().std(correction=0)))
    assert seen.slope_mean_square == exact(float((slope**2).mean()))
    assert (seen.saturated_low, seen.saturated_high) == (3 / 8, 2 / 8)
    assert seen.saturated == 5 / 8
    assert seen.bounded


def test_dead_units_are_those_that_never_open() -> None:
    net = nn.Sequential(
        OrderedDict(
            first=constant(1.0, width=6),
            act=nn.ReLU(),
            last=constant(1.0, width=6),
        )
    )
    with torch.no_grad():
        net.first.bias[:4] = torch.tensor([-5.0, -5.0, -5.0, 5.0])
    # Unit 0 opens in the second batch only; units 1 and 2 never do.
    quiet, loud = torch.zeros(2, 5, 6, dtype=torch.float64)
    quiet[:, 4:] = 1.0
    loud[2, 0] = 9.0
    loud[:, 4] = -1.0
    flow = scan_all(net, [one_batch(quiet), one_batch(loud)])
    seen = activation(flow, "act")

    assert (seen.units, seen.dead_units) == (6, 2)
    assert seen.dead_fraction == 2 / 6
    assert seen.dead_bound == 3 / 10


def test_a_closed_unit_has_no_gradient_in_its_row_of_the_weight() -> None:
    net = nn.Sequential(constant(1.0), nn.ReLU(), constant(1.0))
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0, -9.0]))
    found = parameters(scan(net, noise(5, 4)))

    assert found["0.weight"].zero_fraction == 0.5
    assert found["0.bias"].zero_fraction == 0.5
    assert found["2.bias"].zero_fraction == 0.0


def test_channels_are_the_units_of_a_convolution() -> None:
    conv = nn.Conv2d(1, 5, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.copy_(torch.tensor([0.0, -9.0, 0.0, -9.0, -9.0]))
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, 2))
    seen = activation(scan(net, torch.rand(4, 1, 3, 3)), "1")

    assert (seen.units, seen.dead_units) == (5, 3)


def test_a_rank_one_weight_lets_one_direction_through() -> None:
    """δW for W = u vᵀ has the norm |u·δ| · ‖v‖."""
    u, v = noise(5, seed=1), noise(7, seed=2)
    net = nn.Sequential(nn.Linear(7, 7, bias=False), nn.Linear(7, 5, bias=False))
    net.double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(7))
        net[1].weight.copy_(torch.outer(u, v))
    x = noise(6, 7)
    flow = scan(net, x)

    delta = cotangent(net(x), 0, 0, 0)
    expected = l2(torch.outer(delta @ u, v)) / l2(delta)
    assert layer(flow, "0").attenuation.value == exact(math.log10(expected))


def test_the_gradient_of_a_weight_is_the_outer_product() -> None:
    x = noise(6, 4)
    net = scaled_identity([0.5, 2.0], width=4)
    found = parameters(scan(net, x))

    delta = cotangent(net(x), 0, 0, 0)
    last = delta.T @ (0.5 * x)
    first = (2.0 * delta).T @ x
    assert found["1.weight"].grad_norm == exact(l2(last))
    assert found["0.weight"].grad_norm == exact(l2(first))
    assert found["0.weight"].grad_rms == exact(l2(first) / 4)
    assert found["0.weight"].weight_rms == exact(0.5 * math.sqrt(4) / 4)
    assert found["0.weight"].grad_to_weight == exact(l2(first) / (0.5 * 2))
    assert found["0.weight"].zero_fraction == 0.0
    assert (found["0.weight"].shape, found["0.weight"].numel) == ((4, 4), 16)


def test_the_loss_probe_compares_with_the_gradient_at_the_output() -> None:
    """For a mean squared error that gradient is 2 (y − t) / n."""
    net = scaled_identity([0.5, 0.2, 2.0], width=3)
    x, target = noise(4, 3), noise(4, 3, seed=1)
    loss = Loss("mse", nn.functional.mse_loss)
    flow = scan(net, x, loss=loss, labels=target)

    value = float(nn.functional.mse_loss(0.2 * x, target))
    assert flow.probe == "loss"
    assert flow.loss is not None
    assert flow.loss.value == exact(value)
    assert layer(flow, "2").attenuation.value == exact(0.0)
    assert layer(flow, "1").attenuation.value == exact(math.log10(2.0))
    assert layer(flow, "0").attenuation.value == exact(math.log10(0.4))
    delta = 2 * (0.2 * x - target) / 12
    assert parameters(flow)["2.weight"].grad_norm == exact(l2(delta.T @ (0.1 * x)))


# ------------------------------------------------------------ small numbers


@pytest.mark.parametrize("depth", [20, 50])
def test_a_deep_sigmoid_net_has_the_decades_of_the_float64_oracle(depth: int) -> None:
    net = models.sigmoid_mlp(depth=depth)
    x = noise(8, 64).float()
    flow = scan(net, x)

    twin = models.sigmoid_mlp(depth=depth).double()
    value, kept = x.double(), []
    for module in [*twin.layers, twin.head]:
        value = module(value)
        kept.append(value)
    vector = cotangent(value, 0, 0, 0)
    gradients = torch.autograd.grad(value, kept, vector)
    reference = l2(vector)
    for place, module in enumerate(twin.layers):
        row = layer(flow, f"layers.{place}")
        expected = decades(gradients[place], reference)
        assert row.attenuation.value == pytest.approx(expected, abs=1e-4), module
        assert not row.zero_gradient
    assert flow.attenuation.value < -0.8 * depth


def test_depth_fifty_is_measured_again_where_float32_ends() -> None:
    """The last decades are below the smallest float32: it reads zero there."""
    net = models.sigmoid_mlp(depth=60)
    x = noise(8, 64).float()
    flow = scan(net, x)

    assert flow.precision.dtype == "float32"
    assert flow.precision.measured == "float64"
    assert flow.precision.lost is not None
    assert flow.precision.lost > 0.1
    assert "float32" in flow.precision.reason
    plain = scan(net, x, dtype="float32")
    assert plain.precision.measured == "float32"
    assert layer(plain, "layers.0").zero_gradient
    assert not layer(flow, "layers.0").zero_gradient


def test_a_huge_gradient_does_not_overflow() -> None:
    """Its square does, in float32: the norm must not."""
    flow = scan(scaled_identity([1e3] * 13).float(), noise(3, 5).float())

    assert flow.precision.measured == "float32"
    assert flow.attenuation.value == pytest.approx(36.0, abs=1e-4)
