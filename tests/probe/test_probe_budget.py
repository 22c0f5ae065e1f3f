"""The gradient budget against vector–Jacobian products of each module alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import batch, decades, l2, noise, scan, scan_all
from vgaudit.flow import TrunkStep
from vgaudit.probe.step import cotangent


def sigmoid_mlp() -> nn.Sequential:
    widths = (12, 20, 16, 20, 9, 5)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def normed_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.GroupNorm(2, 8),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 7),
        nn.LayerNorm(7),
        nn.GELU(),
        nn.Linear(7, 4),
    )


def smooth_mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 8),
        nn.SiLU(),
        nn.Linear(8, 8),
        nn.Softplus(),
        nn.Linear(8, 8, bias=False),
        nn.ELU(),
        nn.Linear(8, 3),
        nn.LogSoftmax(1),
    )


CHAINS = {
    "sigmoid": (sigmoid_mlp, (6, 12)),
    "cnn": (normed_cnn, (4, 3, 10, 10)),
    "smooth": (smooth_mlp, (5, 12)),
}
CAUSES = {
    nn.Linear: "weights",
    nn.Conv2d: "weights",
    nn.BatchNorm2d: "normalization",
    nn.GroupNorm: "normalization",
    nn.LayerNorm: "normalization",
    nn.MaxPool2d: "pooling",
    nn.AdaptiveAvgPool2d: "pooling",
}


def across(net: nn.Sequential, x: Tensor) -> tuple[list[float], Tensor]:
    """Returns the decades across each module but the first, and the last gradient.

    Each module runs alone on a copy of its input; what it passes on is the cotangent
    of the one before it.
    """
    net = net.double().train()
    inputs = [x]
    for module in net:
        inputs.append(module(inputs[-1]).detach())
    gains, arriving = [], cotangent(inputs[-1], 0, 0, 0)
    for place in range(len(net) - 1, 0, -1):
        leaf = inputs[place].clone().requires_grad_()
        (passed,) = torch.autograd.grad(net[place](leaf), leaf, arriving)
        gains.append(decades(passed, l2(arriving)))
        arriving = passed
    return gains[::-1], arriving


@pytest.mark.parametrize("name", CHAINS)
def test_the_steps_of_a_chain_are_its_modules_and_add_up_to_the_whole(
    name: str,
) -> None:
    build, shape = CHAINS[name]
    torch.manual_seed(1)
    net, x = build().double(), noise(*shape).double()
    flow = scan(net, x)
    gains, arriving = across(net, x)

    moving = [i for i in range(1, len(net)) if not isinstance(net[i], nn.Flatten)]
    assert len(flow.trunk) == len(moving)
    for step, place in zip(flow.trunk, moving, strict=True):
        assert step.gain.value == pytest.approx(gains[place - 1], abs=1e-9)
        assert step.cause == CAUSES.get(type(net[place]), "activation")
        assert step.name.partition(" ")[0] == str(place)
    whole = decades(arriving, l2(cotangent(net(x), 0, 0, 0)))
    assert math.fsum(s.gain.value for s in flow.trunk) == pytest.approx(whole, abs=1e-9)
    assert flow.attenuation.value == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("name", CHAINS)
def test_the_causes_add_up_over_several_batches(name: str) -> None:
    build, shape = CHAINS[name]
    torch.manual_seed(2)
    given = [batch(noise(*shape, seed=seed).double()) for seed in range(3)]
    flow = scan_all(build().double(), given)

    parts = math.fsum(flow.budget().values())
    assert parts == pytest.approx(flow.attenuation.value, abs=1e-6)


def test_the_slope_of_a_step_is_weighted_by_the_gradient() -> None:
    torch.manual_seed(3)
    net, x = sigmoid_mlp().double(), noise(6, 12).double()
    flow = scan(net, x)

    z = net[0](x)
    hidden = net[1](z)
    out = net[2:](hidden)
    (arriving,) = torch.autograd.grad(out, hidden, cotangent(out, 0, 0, 0))
    slope = torch.sigmoid(z) * (1 - torch.sigmoid(z))
    squares = ((slope * arriving) ** 2).sum() / (arriving**2).sum()
    mean = float(squares.detach())
    assert flow.trunk[0].mean_square_slope == pytest.approx(mean, rel=1e-9)
    assert flow.trunk[1].mean_square_slope is None


class Scaled(nn.Module):
    """Two layers, and between them a product that a test names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.full((8,), 0.5))
        self.register_buffer("mask", torch.full((8,), 0.1))
        self.product: Callable[[Scaled, Tensor], Tensor] = lambda _, x: x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.product(self, self.first(x)))


@pytest.mark.parametrize(
    ("product", "cause", "gain"),
    [
        (lambda _, x: 0.3 * x, "scale", math.log10(0.3)),
        (lambda _, x: x / 50, "scale", -math.log10(50)),
        (lambda net, x: x * net.mask, "scale", -1.0),
        (lambda net, x: x * net.gain, "weights", math.log10(0.5)),
        (lambda _, x: x * x.tanh(), "activation", None),
        (lambda _, x: x * x.flip(0), "branches", None),
    ],
    ids=["number", "quotient", "buffer", "parameter", "a gate", "two ways"],
)
def test_a_product_with_a_constant_is_told_from_one_of_two_ways(
    product: Callable[[Scaled, Tensor], Tensor], cause: str, gain: float | None
) -> None:
    torch.manual_seed(6)
    net = Scaled().double()
    net.product = product
    flow = scan(net, noise(5, 6).double())

    step, last = flow.trunk
    assert (step.cause, last.cause) == (cause, "weights")
    assert gain is None or step.gain.value == pytest.approx(gain, abs=1e-7)


# ------------------------------------------------------------------ branches


class Residual(nn.Module):
    """stem, then x + second(tanh(first(norm(x)))), then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)
        self.first, self.second = nn.Linear(8, 10), nn.Linear(10, 8)

    def branch(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for part in (self.norm, self.first, torch.tanh, self.second):
            values.append(part(values[-1]))
        return values

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.branch(x)[-1])


def test_the_steps_of_a_branch_add_up_to_what_it_delivers() -> None:
    torch.manual_seed(4)
    net, x = Residual().double(), noise(5, 6).double()
    flow = scan(net, x)

    stem = net.stem(x)
    # The branch reads a copy, so that its own share of the gradient can be told.
    copy = stem.clone()
    values = net.branch(copy)
    joined = stem + values[-1]
    out = net.head(joined)
    given = cotangent(out, 0, 0, 0)
    wanted = [joined, *values[::-1]]
    at = [l2(g) for g in torch.autograd.grad(out, wanted, given)]
    (branch,) = flow.branches
    names = [step.name for step in branch.steps]
    assert names == ["norm", "first", "tanh#1", "second", "add#1"]
    gains = [math.log10(b / a) for a, b in itertools.pairwise(at)]
    for step, gain in zip(branch.steps, gains[::-1], strict=True):
        assert step.gain.value == pytest.approx(gain, abs=1e-9), step.name
    assert branch.total.value == pytest.approx(math.log10(at[-1] / at[0]), abs=1e-9)
    total = math.fsum(step.gain.value for step in branch.steps)
    assert total == pytest.approx(branch.total.value, abs=1e-6)


def test_a_merge_states_the_sum_and_its_cross_term() -> None:
    torch.manual_seed(5)
    net, x = Residual().double(), noise(5, 6).double()
    flow = scan(net, x)

    stem = net.stem(x)
    skip, copy = stem.clone(), stem.clone()
    out = net.head(skip + net.branch(copy)[-1])
    given = cotangent(out, 0, 0, 0)
    one, two = torch.autograd.grad(out, [skip, copy], given)
    (merge,) = flow.merges
    assert merge.name == "stem"
    assert merge.total == pytest.approx(decades(one + two, l2(given)), abs=1e-9)
    expected = {"add#1": decades(one, l2(given)), "norm": decades(two, l2(given))}
    assert {a.name: a.norm for a in merge.arrivals} == pytest.approx(expected, abs=1e-9)
    inner = 2 * float((one * two).sum()) / (l2(one) ** 2 + l2(two) ** 2)
    assert merge.cross == pytest.approx(inner, abs=1e-9)


class Cancelling(nn.Module):
    """h − h: two users of h whose gradients cancel but for a small part."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.stem, self.head, self.share = nn.Linear(4, 4), nn.Linear(4, 2), share

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(torch.sub(h, h.mul(self.share)))


@pytest.mark.parametrize("share", [-1.0, 0.5, 0.999])
def test_the_cross_term_tells_agreeing_from_cancelling(share: float) -> None:
    flow = scan(Cancelling(share).double(), noise(3, 4).double())
    (merge,) = flow.merges

    expected = -2 * share / (1 + share**2)
    assert merge.cross == pytest.approx(expected, abs=1e-9)


def test_merges_are_measured_on_the_first_batch_alone() -> None:
    torch.manual_seed(6)
    net = Residual().double()
    given = [batch(noise(5, 6, seed=seed).double()) for seed in range(3)]

    assert scan_all(net, given).merges == scan_all(net, given[:1]).merges


# -------------------------------------------------------------------- causes


class WrittenOut(nn.Module):
    """A norm, an attention and an activation made of single operations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        x = self.second(x)
        x = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        x = self.third(x)
        x = x * torch.sigmoid(1.7 * x)
        return self.head(x)


def test_written_out_operations_are_counted_as_what_they_are() -> None:
    flow = scan(WrittenOut(), noise(3, 5, 8))

    blocks = [step.cause for step in flow.trunk if "…" in step.op]
    assert blocks == ["normalization", "attention", "activation"]


class Tokens(nn.Module):
    """A learned token beside those of the data, and the output reads it alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.mix, self.head = (nn.Linear(6, 6) for _ in range(3))
        self.token = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), 1, 6), self.embed(x)], 1)
        x = torch.tanh(self.mix(x.transpose(1, 2).flatten(1)[:, :6]))
        return self.head(x)


def test_what_goes_to_a_learned_token_is_no_loss_by_weights() -> None:
    flow = scan(Tokens().double(), noise(4, 5, 6).double())

    (joined,) = [step for step in flow.trunk if step.op == "Cat"]
    assert "merge" == joined.cause
    weights = [step.name for step in flow.trunk if step.cause == "weights"]
    assert {"mix", "head"} == set(weights)


class TwoHeads(nn.Module):
    """Two outputs: above the last shared tensor there is no single one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.stem(x))
        return self.one(x), self.two(x)


def test_what_lies_above_the_first_cut_is_a_step_too() -> None:
    flow = scan(TwoHeads().double(), noise(4, 6).double())

    top: TrunkStep = flow.trunk[-1]
    assert (top.name, top.cause) == ("outputs", "branches")
    whole = math.fsum(step.gain.value for step in flow.trunk)
    assert whole == pytest.approx(flow.attenuation.value, abs=1e-9)
