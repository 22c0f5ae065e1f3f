"""What must not change the figures: scale, reduction, order, repetition, seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fixtures import batches as inputs
from fixtures import models
from tests.probe.scans import audit, parameters, scan, scan_all
from vgaudit.data.batch import Batch, Loss
from vgaudit.flow import GradientFlow
from vgaudit.judge import judge

NAMES = (
    "deep_sigmoid_mlp",
    "healthy_relu_mlp",
    "saturated_tanh_mlp",
    "dead_relu_mlp",
    "healthy_residual_net",
    "tiny_transformer",
    "zero_head_vit",
    "layer_scale_net",
    "detached_branch",
    "lstm_classifier",
)


def given(name: str, size: int = 8, count: int = 2) -> list[Batch]:
    return [
        Batch(
            args=inputs.inputs(name, size, seed=seed),
            labels=inputs.labels(size, seed=seed),
            size=size,
        )
        for seed in range(count)
    ]


def model(name: str) -> nn.Module:
    factory: Callable[[], nn.Module] = getattr(models, name)
    return factory()


def cross_entropy(scale: float, reduction: str = "mean") -> Loss:
    def loss(output: Any, labels: Tensor) -> Tensor:
        return scale * F.cross_entropy(output, labels, reduction=reduction)

    return Loss("cross-entropy", loss)


def decades_of(flow: GradientFlow) -> dict[str, float]:
    """Returns every figure in decades, by name."""
    found: dict[str, float] = {}
    for place, row in enumerate(flow.layers):
        if row.attenuation is not None:
            found[f"{place} {row.path}"] = row.attenuation.value
        if row.gain is not None:
            found[f"{place} {row.path} gain"] = row.gain.value
    for step in flow.trunk:
        found[f"step {step.name}"] = step.gain.value
    for branch in flow.branches:
        found[f"branch {branch.name}"] = branch.decay.value
        found[f"branch {branch.name} offset"] = branch.offset.value
    if flow.attenuation is not None:
        found["all"] = flow.attenuation.value
    return found


def same(first: GradientFlow, second: GradientFlow, *, close: float = 1e-4) -> None:
    one, two = decades_of(first), decades_of(second)
    assert one.keys() == two.keys()
    assert len(one) > 5
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=close), name


def findings(flow: GradientFlow) -> list[tuple[str, str, str]]:
    return [(f.code, f.level, f.layer or "") for f in judge(audit(flow)).findings]


@pytest.mark.parametrize("scale", [1e-6, 1e6, -1.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_the_loss_changes_nothing(name: str, scale: float) -> None:
    data = given(name)
    plain = scan_all(model(name), data, loss=cross_entropy(1.0))
    scaled = scan_all(model(name), data, loss=cross_entropy(scale))

    same(plain, scaled)
    assert findings(plain) == findings(scaled)
    one, two = parameters(plain), parameters(scaled)
    for path, figures in one.items():
        assert two[path].grad_norm == pytest.approx(
            abs(scale) * figures.grad_norm, rel=1e-3
        ), path


@pytest.mark.parametrize("name", NAMES)
def test_the_reduction_of_the_loss_changes_nothing(name: str) -> None:
    data = given(name)
    mean = scan_all(model(name), data, loss=cross_entropy(1.0, "mean"))
    total = scan_all(model(name), data, loss=cross_entropy(1.0, "sum"))

    same(mean, total)
    assert findings(mean) == findings(total)


@pytest.mark.parametrize("name", NAMES)
def test_probing_twice_is_probing_once(name: str) -> None:
    net, data = model(name), given(name)

    assert scan_all(net, data) == scan_all(net, data)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_batches_is_irrelevant(name: str) -> None:
    """With a loss no cotangent is drawn, so that only the sums could differ."""
    data, loss = given(name, count=4), cross_entropy(1.0)
    forwards = scan_all(model(name), data, loss=loss)
    backwards = scan_all(model(name), data[::-1], loss=loss)

    same(forwards, backwards, close=1e-6)
    for one, two in zip(forwards.layers, backwards.layers, strict=True):
        if one.activation is None:
            continue
        assert two.activation is not None
        assert one.activation.dead_units == two.activation.dead_units
        assert one.activation.input.mean == pytest.approx(
            two.activation.input.mean, rel=1e-5, abs=1e-7
        )


@pytest.mark.parametrize("name", ["deep_sigmoid_mlp", "healthy_residual_net",
                                  "tiny_transformer"])  # fmt: skip
def test_seeds_move_the_figures_inside_their_interval(name: str) -> None:
    data = given(name, size=16, count=6)
    flows = [scan_all(model(name), data, seed=seed) for seed in range(3)]

    first = flows[0].attenuation
    assert first is not None
    assert first.n == 6
    spread = first.hi - first.lo
    for flow in flows[1:]:
        assert flow.attenuation is not None
        assert flow.attenuation.value != first.value
        assert abs(flow.attenuation.value - first.value) < 1.5 * spread
        assert flow.seed != flows[0].seed


def test_the_seed_leaves_the_statistics_of_activations_alone() -> None:
    data = given("deep_sigmoid_mlp")
    one = scan_all(model("deep_sigmoid_mlp"), data, seed=0)
    two = scan_all(model("deep_sigmoid_mlp"), data, seed=9)

    assert [r.activation for r in one.layers] == [r.activation for r in two.layers]


def test_the_state_of_the_callers_random_numbers_is_irrelevant() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.first(x) + torch.rand(6)))

    torch.manual_seed(0)
    net, x = Noisy(), torch.randn(5, 6)
    torch.manual_seed(1)
    one = scan(net, x)
    torch.manual_seed(2)
    two = scan(net, x)

    assert one == two


def test_dropout_of_every_kind_is_off() -> None:
    class Dropping(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
            self.module, self.rate = nn.Dropout(rate), rate
            self.lstm = nn.LSTM(8, 8, 2, dropout=rate, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, dropout=rate, batch_first=True)
            self.encoder = nn.TransformerEncoderLayer(8, 2, 8, rate, batch_first=True)
            self.own = OwnDropPath(rate)

        def forward(self, x: Tensor) -> Tensor:
            x = self.module(self.first(x))
            x = F.dropout(x, self.rate)
            x = torch.dropout(x, self.rate, True)
            x = F.alpha_dropout(x, self.rate, training=True)
            x, _ = self.lstm(x)
            x = self.encoder(self.attention(x, x, x)[0])
            x = F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate)
            return self.last(self.own(x))

    class OwnDropPath(nn.Module):
        """As transformers name theirs: with the model's name in front."""

        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate = rate

        def forward(self, x: Tensor) -> Tensor:
            if not self.training or not self.rate:
                return x
            keep = torch.rand(x.shape[0], 1, 1) >= self.rate
            return x * keep / (1 - self.rate)

    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(3))
    without = scan(Dropping(0.0), x)
    dropping = scan(Dropping(0.5), x)

    one, two = parameters(without), parameters(dropping)
    for path, figures in one.items():
        assert two[path].grad_norm == pytest.approx(figures.grad_norm, rel=1e-5), path


def test_a_constant_factor_between_layers_is_seen_once() -> None:
    """Multiplying a weight by c moves what lies below it by log10 c, and no more."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(5))).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    before = scan(net, x)
    with torch.no_grad():
        net[3].weight.mul_(1e-3)
    after = scan(net, x)

    moved = [
        b.attenuation.value - a.attenuation.value
        for a, b in zip(before.layers, after.layers, strict=True)
    ]
    assert moved == pytest.approx([-3.0, -3.0, -3.0, 0.0, 0.0], abs=1e-9)
    assert math.isclose(
        before.attenuation.value - 3.0, after.attenuation.value, abs_tol=1e-9
    )
