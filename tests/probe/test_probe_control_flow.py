"""Graphs that change with the data, and graphs that are very deep."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import (
    activation,
    batch,
    decades,
    l2,
    layer,
    noise,
    parameters,
    scan_all,
)
from vgaudit.data.batch import Batch
from vgaudit.probe.step import cotangent

# ------------------------------------------------------------ control flow


class Switch(nn.Module):
    """Which layers run depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
        self.low, self.high, self.extra = (nn.Linear(6, 6) for _ in range(3))
        self.never = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x[0, 0] < 0:
            x = torch.sigmoid(self.low(x))
        else:
            x = torch.sigmoid(self.high(x))
            x = torch.tanh(self.extra(x)) if x.shape[0] > 4 else x
        return self.last(x)


def switching(net: Switch, *, high: bool, size: int, seed: int) -> Batch:
    """Returns a batch that takes the wanted way."""
    while True:
        x = noise(size, 6, seed=seed)
        if bool(net.first(x)[0, 0] >= 0) == high:
            return batch(x)
        seed += 100


def oracle(net: Switch, x: Tensor, number: int) -> dict[str, float]:
    """Returns the decades at the output of every layer, by autograd."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda m, a, out, name=name: kept.update({name: out})
        )
        for name, module in net.named_children()
    ]
    out = net(x)
    for handle in handles:
        handle.remove()
    vector = cotangent(out, 0, number, 0)
    gradients = torch.autograd.grad(out, list(kept.values()), vector)
    return {
        name: decades(gradient, l2(vector))
        for name, gradient in zip(kept, gradients, strict=True)
    }


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 3, 1, 0), (1, 4, 0, 3, 2)])
def test_each_batch_is_measured_on_its_own_graph(order: tuple[int, ...]) -> None:
    net = Switch().double()
    kinds = [(False, 4), (True, 4), (True, 6), (False, 4), (False, 6)]
    given = [
        switching(net.float(), high=kinds[place][0], size=kinds[place][1], seed=place)
        for place in order
    ]
    net.double()
    flow = scan_all(net, given)

    expected: dict[str, list[float]] = {}
    for number, one in enumerate(given):
        for name, value in oracle(net, one.args[0].double(), number).items():
            expected.setdefault(name, []).append(value)
    for name, values in expected.items():
        found = layer(flow, name).attenuation
        assert found is not None, name
        assert found.n == len(values), name
        assert found.value == pytest.approx(sum(values) / len(values), abs=1e-9), name
    assert layer(flow, "extra").depth == 1
    assert activation(flow, "tanh#1").samples == 6
    assert activation(flow, "sigmoid#1").samples == 24
    state = {n: (p.connected, p.called) for n, p in parameters(flow).items()}
    assert state["never.weight"] == (False, False)
    assert state["extra.weight"] == state["low.bias"] == (True, True)
    assert flow.notes == (
        "control flow depends on the data: 3 graphs in 5 batches; the trunk is that "
        "of 3",
    )
    assert flow.weight_layers == 3


def test_a_loop_of_data_dependent_length_is_measured() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.step, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(x.shape[1]):
                x = torch.tanh(self.step(x.mean(1, keepdim=True).expand_as(x)))
            return self.head(x[:, 0])

    flow = scan_all(Loop(), [batch(noise(3, n, 6)) for n in (2, 5, 2, 3)])

    calls = [row.call for row in flow.layers if row.path == "step"]
    assert sorted(calls) == [0, 1, 2, 3, 4]
    assert layer(flow, "step", call=1).attenuation.n == 4
    assert layer(flow, "step", call=4).attenuation.n == 1


# ------------------------------------------------------------ size


@pytest.mark.parametrize("depth", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_thousands_of_layers_are_measured(depth: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential()
    for _ in range(depth):
        linear = nn.Linear(2, 2, bias=False)
        nn.init.orthogonal_(linear.weight)
        net.append(linear)
        net.append(nn.LeakyReLU(0.999))
    started = time.perf_counter()
    flow = scan_all(net, [batch(noise(2, 2)), batch(noise(2, 2, seed=1))])

    assert flow.weight_layers == depth
    assert len(flow.layers) == 2 * depth
    assert layer(flow, "0").depth == depth - 1
    assert sum(step.gain.value for step in flow.trunk) == pytest.approx(
        flow.attenuation.value, abs=1e-6
    )
    # Linear in the depth; a quadratic step would take minutes.
    assert time.perf_counter() - started < 5 + depth / 60
