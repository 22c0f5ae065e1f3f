"""The step of SDAGD against a slow second implementation, its limits and laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.optim.networks import backward, batches, mlp, set_gradient, values_of
from tests.optim.oracle import Affine, SlowSDAGD
from vgaudit.optim import SDAGD

SIZES = (5, 7, 6, 3)


def test_defaults_follow_the_depth_rule() -> None:
    model = mlp(*SIZES)

    optimizer = SDAGD(model.named_parameters())

    assert 0.1 / math.sqrt(3) == optimizer.param_groups[0]["lr"]
    assert 0.0 == optimizer.param_groups[0]["kappa"]
    assert optimizer.param_groups[0]["centring"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"centring": False},
        {"adapt": True},
        {"weight_decay": 0.3},
    ],
    ids=["default", "uncentred", "adapted", "decayed"],
)
def test_equals_the_slow_implementation(options: dict[str, float]) -> None:
    model = mlp(*SIZES)
    optimizer = SDAGD(model.named_parameters(), lr=0.05, **options)
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    slow = SlowSDAGD([Affine(x.weight, x.bias) for x in linears], lr=0.05, **options)

    for x, y in batches(17, 5, 3):
        backward(model, x, y)
        grads = [(layer.weight.grad, layer.bias.grad) for layer in linears]
        slow.step([(w.clone(), b.clone()) for w, b in grads])
        optimizer.step()

    for layer, expected in zip(linears, slow.layers, strict=True):
        torch.testing.assert_close(layer.weight.detach(), expected.weight)
        torch.testing.assert_close(layer.bias.detach(), expected.bias)


def test_float32_equals_the_slow_implementation_to_its_precision() -> None:
    model = mlp(*SIZES, dtype=torch.float32)
    optimizer = SDAGD(model.named_parameters(), lr=0.05)
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    slow = SlowSDAGD([Affine(x.weight, x.bias) for x in linears], lr=0.05)

    for x, y in batches(10, 5, 3, torch.float32):
        backward(model, x, y)
        slow.step([(layer.weight.grad, layer.bias.grad) for layer in linears])
        optimizer.step()

    for layer, expected in zip(linears, slow.layers, strict=True):
        torch.testing.assert_close(
            layer.weight.detach().double(), expected.weight, rtol=1e-4, atol=1e-6
        )


@pytest.mark.filterwarnings("ignore:kappa > 0")
def test_equals_the_slow_implementation_with_curvature() -> None:
    model = mlp(*SIZES)
    curvature = [
        (torch.rand_like(layer.weight), torch.rand_like(layer.bias))
        for layer in model
        if isinstance(layer, nn.Linear)
    ]
    optimizer = SDAGD(model.named_parameters(), lr=0.05, kappa=3.0, every=1000)
    give_curvature(optimizer, [part for pair in curvature for part in pair])
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    slow = SlowSDAGD(
        [Affine(x.weight, x.bias) for x in linears],
        lr=0.05,
        kappa=3.0,
        curvature=curvature,
    )

    for x, y in batches(6, 5, 3):
        backward(model, x, y)
        slow.step([(layer.weight.grad, layer.bias.grad) for layer in linears])
        optimizer.step()

    for layer, expected in zip(linears, slow.layers, strict=True):
        torch.testing.assert_close(layer.weight.detach(), expected.weight)
        torch.testing.assert_close(layer.bias.detach(), expected.bias)


def give_curvature(optimizer: SDAGD, curvature: list[Tensor]) -> None:
    """Writes a known curvature to the state, as if it had been observed."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, values in zip(params, curvature, strict=True):
        kept = optimizer.state[parameter]
        kept["curvature"] = values.detach().clone()
        kept["curvature_weight"] = 1.0


@pytest.mark.filterwarnings("ignore:kappa > 0")
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    kappa=st.sampled_from([0.0, 0.1, 30.0]),
    solve=st.sampled_from(["agd", "trust"]),
    scope=st.sampled_from(["tensor", "layer", "global"]),
    momentum=st.sampled_from([0.0, 0.9, 0.99]),
)
def test_no_layer_steps_further_than_its_radius(
    seed: int, kappa: float, solve: str, scope: str, momentum: float
) -> None:
    torch.manual_seed(seed)
    model = mlp(4, 5, 2)
    optimizer = SDAGD(
        model.named_parameters(),
        lr=0.1,
        kappa=kappa,
        solve=solve,
        scope=scope,
        momentum=momentum,
        centring=False,
    )
    give_curvature(optimizer, [torch.rand_like(p) for p in model.parameters()])

    for _ in range(4):
        before = values_of(model)
        for parameter in model.parameters():
            length = 10.0 ** float(torch.empty(()).uniform_(-9, 9))
            set_gradient(parameter, torch.randn_like(parameter) * length)
        optimizer.step()
        moved = [a - b for a, b in zip(values_of(model), before, strict=True)]
        phases = optimizer.phases()

        groups = [moved] if scope == "global" else [moved[:2], moved[2:]]
        for phase, parts in zip(phases, groups, strict=True):
            length = math.hypot(*(float(part.norm()) for part in parts))
            assert length <= phase.radius * (1 + 1e-7)
            assert phase.step_ratio == pytest.approx(length / phase.radius, abs=1e-7)


@pytest.mark.filterwarnings("ignore:kappa > 0")
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), kappa=st.sampled_from([0.0, 5.0]))
def test_a_step_descends_centred_or_not(seed: int, kappa: float) -> None:
    torch.manual_seed(seed)
    model = mlp(4, 5, 2)
    optimizer = SDAGD(model.named_parameters(), lr=0.1, kappa=kappa, momentum=0.0)
    give_curvature(optimizer, [torch.rand_like(p) for p in model.parameters()])
    before = values_of(model)
    grads = [torch.randn_like(p) for p in model.parameters()]
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        set_gradient(parameter, grad)

    optimizer.step()

    slope = sum(
        float((grad * (after - old)).sum())
        for grad, after, old in zip(grads, values_of(model), before, strict=True)
    )
    assert slope < 0.0


def test_without_curvature_the_first_step_is_the_radius_along_the_gradient() -> None:
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    before = model.weight.detach().clone()
    grad = torch.randn_like(before)
    set_gradient(model.weight, grad)
    optimizer = SDAGD(model.named_parameters(), lr=0.2)

    optimizer.step()

    radius = 0.2 * before.norm()
    torch.testing.assert_close(
        model.weight.detach(), before - radius * grad / grad.norm()
    )
    assert optimizer.phases()[0].step_ratio == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:kappa > 0")
@pytest.mark.parametrize("solve", ["agd", "trust"])
def test_with_an_endless_radius_the_step_is_newtons(solve: str) -> None:
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    before = model.weight.detach().clone()
    grad, curvature = torch.randn_like(before), torch.rand_like(before) + 0.1
    set_gradient(model.weight, grad)
    optimizer = SDAGD(
        model.named_parameters(), lr=1e12, radius="absolute", kappa=1.0, solve=solve
    )
    give_curvature(optimizer, [curvature])

    optimizer.step()

    torch.testing.assert_close(model.weight.detach(), before - grad / curvature)


@pytest.mark.filterwarnings("ignore:kappa > 0")
def test_trust_solves_a_diagonal_quadratic_in_one_step() -> None:
    model = nn.Linear(6, 5, bias=False, dtype=torch.float64)
    curvature = torch.rand_like(model.weight) * 10 + 0.01
    lowest = torch.randn_like(model.weight)
    optimizer = SDAGD(
        model.named_parameters(), lr=1e3, radius="absolute", kappa=1.0, solve="trust"
    )
    give_curvature(optimizer, [curvature])
    (0.5 * curvature.detach() * (model.weight - lowest) ** 2).sum().backward()

    optimizer.step()

    torch.testing.assert_close(model.weight.detach(), lowest.detach())
    assert optimizer.phases()[0].curvature_ratio == math.inf


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**-20, 2.0**40])
def test_the_scale_of_the_loss_changes_nothing(scale: float) -> None:
    trained = []
    for factor in (1.0, scale):
        model = mlp(*SIZES, dtype=torch.float32)
        optimizer = SDAGD(model.named_parameters(), adapt=True)
        for x, y in batches(8, 5, 3, torch.float32):
            backward(model, x, y)
            for parameter in model.parameters():
                set_gradient(parameter, parameter.grad * factor)
            optimizer.step()
        trained.append(values_of(model))

    for plain, scaled in zip(*trained, strict=True):
        torch.testing.assert_close(plain, scaled, rtol=1e-5, atol=1e-6)


def test_the_scale_of_the_loss_changes_nothing_with_curvature() -> None:
    trained = []
    for factor in (1.0, 1e-6):
        model = mlp(*SIZES)
        optimizer = SDAGD(model.named_parameters(), lr=0.3, kappa=50.0, every=2)
        for x, y in batches(8, 5, 3):
            optimizer.observe(model(x), "cross-entropy", scale=factor)
            backward(model, x, y, scale=factor)
            optimizer.step()
        trained.append(values_of(model))

    for plain, scaled in zip(*trained, strict=True):
        torch.testing.assert_close(plain, scaled)


def test_one_global_damping_leaves_a_vanished_layer_where_it_is() -> None:
    moved = {}
    for scope in ("tensor", "layer", "global"):
        model = mlp(4, 4, 4)
        before = values_of(model)
        for parameter, size in zip(model.parameters(), (1e-8, 1e-8, 1, 1), strict=True):
            set_gradient(parameter, torch.ones_like(parameter) * size)
        optimizer = SDAGD(model.named_parameters(), lr=0.1, scope=scope, centring=False)
        optimizer.step()
        first = values_of(model)[0] - before[0]
        moved[scope] = float(first.norm() / before[0].norm())

    assert moved["tensor"] == pytest.approx(0.1)
    assert 0.01 < moved["layer"] < 0.2
    assert moved["global"] < 1e-8


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_literal_is_the_published_formula(scope: str) -> None:
    model = mlp(4, 5, 2)
    before = values_of(model)
    optimizer = SDAGD(model.named_parameters(), lr=0.3, literal=True, scope=scope)
    curvature = [torch.rand_like(p) for p in model.parameters()]
    give_curvature(optimizer, curvature)
    grads = [torch.randn_like(p) for p in model.parameters()]
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        set_gradient(parameter, grad)

    with pytest.warns(UserWarning, match="no curvature was observed"):
        optimizer.step()

    blocks = [[0, 1], [2, 3]] if scope == "layer" else [[0, 1, 2, 3]]
    for block in blocks:
        mu = torch.cat([grads[i].flatten() for i in block]).norm() / 0.3
        for i in block:
            expected = before[i] - grads[i] / (mu + curvature[i])
            torch.testing.assert_close(values_of(model)[i], expected)


def test_literal_defaults_yield_to_what_is_given() -> None:
    model = mlp(4, 5, 2)

    optimizer = SDAGD(
        model.named_parameters(), literal=True, momentum=0.5, radius="relative"
    )

    assert 0.5 == optimizer.param_groups[0]["momentum"]
    assert 0.1 / math.sqrt(2) == optimizer.param_groups[0]["lr"]
    assert 1.0 == optimizer.param_groups[0]["kappa"]


def test_maximize_is_the_mirror_image() -> None:
    ends = []
    for maximize in (False, True):
        model = mlp(4, 5, 2)
        optimizer = SDAGD(model.named_parameters(), maximize=maximize)
        for index, parameter in enumerate(model.parameters()):
            torch.manual_seed(index)
            sign = -1.0 if maximize else 1.0
            set_gradient(parameter, sign * torch.randn_like(parameter))
        optimizer.step()
        ends.append(values_of(model))

    for down, up in zip(*ends, strict=True):
        assert torch.equal(down, up)


def test_cosine_adaptation_grows_on_agreement_and_shrinks_on_reversal() -> None:
    factors = []
    for turns in (False, True):
        model = nn.Linear(4, 3, dtype=torch.float64)
        optimizer = SDAGD(
            model.named_parameters(), lr=0.01, adapt=True, momentum=0.0, centring=False
        )
        weight, bias = torch.randn(3, 4), torch.randn(3)
        for step in range(100):
            sign = -1.0 if turns and step % 2 else 1.0
            set_gradient(model.weight, sign * weight)
            set_gradient(model.bias, sign * bias)
            optimizer.step()
        factors.append(optimizer.phases()[0].radius_factor)

    assert [2.0, 0.1] == pytest.approx(factors)


def test_adapts_by_itself_only_above_twenty_layers() -> None:
    shallow = mlp(*[2] * 21)
    deep = mlp(*[2] * 22)
    for model in (shallow, deep):
        for parameter in model.parameters():
            set_gradient(parameter, torch.ones_like(parameter))
    optimizers = [
        SDAGD(model.named_parameters(), centring=False) for model in (shallow, deep)
    ]
    for _ in range(10):
        for optimizer in optimizers:
            optimizer.step()

    assert {1.0} == {phase.radius_factor for phase in optimizers[0].phases()}
    assert all(phase.radius_factor > 1.0 for phase in optimizers[1].phases())


def test_a_bias_and_a_branch_that_start_at_zero_move() -> None:
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    set_gradient(model.weight, torch.randn(3, 4))
    set_gradient(model.bias, torch.randn(3))
    optimizer = SDAGD(model.named_parameters(), lr=0.1, centring=False)

    optimizer.step()

    floor = 0.1 * 0.05 * math.sqrt(3)
    assert floor == pytest.approx(float(model.weight.detach().norm()), rel=1e-5)
    assert floor == pytest.approx(float(model.bias.detach().norm()), rel=1e-5)


def test_trains_six_sigmoid_layers_where_sgd_stands_still() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    losses = {}
    for name in ("sdagd", "sgd"):
        torch.manual_seed(1)
        layers: list[nn.Module] = []
        for before in (8, *[16] * 5):
            layers += [nn.Linear(before, 16), nn.Sigmoid()]
        model = nn.Sequential(*layers, nn.Linear(16, 2))
        optimizer = (
            SDAGD(model.named_parameters())
            if name == "sdagd"
            else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        )
        for _ in range(300):
            loss = backward(model, x, y)
            optimizer.step()
        losses[name] = float(loss)

    assert losses["sgd"] > 0.68
    assert losses["sdagd"] < 0.3
