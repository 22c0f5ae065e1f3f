"""What kind of cell a loop over time is: told by what its sigmoids flow into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import noise, scan

SIZE, STEPS = 6, 9

Layers = nn.ModuleDict
Step = Callable[[Layers, Tensor, Any], Any]


class Written(nn.Module):
    """A recurrent net whose step is a function, read at its last state alone."""

    def __init__(self, step: Step, state: int = 1) -> None:
        super().__init__()
        names = ("x", "h", "zx", "zh", "ox", "oh", "head")
        wide = {name: nn.Linear(SIZE, SIZE) for name in names}
        self.layers = Layers(wide)
        self.layers.keep = nn.Parameter(torch.zeros(SIZE))
        self.layers["norm"] = nn.LayerNorm(SIZE)
        self.layers["drop"] = nn.Dropout(0.5)
        self.layers["three"] = nn.Linear(2 * SIZE, 3 * SIZE)
        self.step, self.state = step, state

    def forward(self, x: Tensor) -> Tensor:
        state: Any = x.new_zeros(len(x), SIZE)
        state = (state, state) if self.state == 2 else state
        for now in x.unbind(1):
            state = self.step(self.layers, now, state)
        return self.layers["head"](state[0] if self.state == 2 else state)


def kinds_in(net: nn.Module) -> set[str]:
    """Returns the kinds of all loops: layers may read other states of one cell."""
    return {flow.kind for flow in scan(net, noise(5, STEPS, SIZE)).recurrences}


def sigmoid(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    return torch.sigmoid(by["x"](x) + by["h"](h))


def sigmoid_normed_and_scaled(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    raised = torch.sigmoid(by["norm"](by["x"](x) + by["h"](h)))
    return by["drop"](0.9 * raised * by.keep.exp())


def hard_sigmoid(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    return nn.functional.hardsigmoid(by["x"](x) + by["h"](h))


def minimal_gated_unit(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    """Zhou et al. 2016, “Minimal gated unit for recurrent neural networks”."""
    f = torch.sigmoid(by["zx"](x) + by["zh"](h))
    new = torch.tanh(by["x"](x) + by["h"](f * h))
    return (1 - f) * h + f * new


def reset_gate_alone(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    r = torch.sigmoid(by["zx"](x) + by["zh"](h))
    return torch.tanh(by["x"](x) + r * by["h"](h))


def interpolation(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    new = torch.tanh(by["x"](x) + by["h"](h))
    return torch.lerp(h, new, torch.sigmoid(by["zx"](x)))


def leaky_integrator(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    leak = torch.sigmoid(by.keep)
    return (1 - leak) * h + leak * torch.tanh(by["x"](x) + by["h"](h))


def gates_in_one_product(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    gates = torch.sigmoid(by["three"](torch.cat((x, h), 1)))
    reset, update, _ = gates.chunk(3, 1)
    new = torch.tanh(by["x"](x) + by["h"](reset * h))
    return update * h + (1 - update) * new


def peephole(by: Layers, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
    """Gers and Schmidhuber 2000, “Recurrent nets that time and count”."""
    h, c = state
    f = torch.sigmoid(by["zx"](x) + by["zh"](h) + by.keep * c)
    c = f * c + (1 - f) * torch.tanh(by["x"](x) + by["h"](h))
    return torch.sigmoid(by["ox"](x) + by["oh"](h) + by.keep * c) * torch.tanh(c), c


def tanh(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(by["x"](x) + by["h"](h))


def swish_by_hand(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    z = by["x"](x) + by["h"](h)
    return z * torch.sigmoid(z)


def sigmoid_beside_a_skip(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    return h + torch.sigmoid(by["x"](x) + by["h"](h))


def input_gate(by: Layers, x: Tensor, h: Tensor) -> Tensor:
    """A gate on the input alone: nothing of the state is kept by it."""
    return torch.tanh(torch.sigmoid(by["zx"](x)) * by["x"](x) + by["h"](h))


KINDS: dict[str, tuple[Step, ...]] = {
    "sigmoid-cell": (sigmoid, sigmoid_normed_and_scaled, hard_sigmoid),
    "gated-cell": (
        minimal_gated_unit,
        reset_gate_alone,
        interpolation,
        leaky_integrator,
        gates_in_one_product,
        peephole,
    ),
    "cell": (tanh, swish_by_hand, sigmoid_beside_a_skip, input_gate),
}


@pytest.mark.parametrize(
    ("kind", "step"),
    [(kind, step) for kind, steps in KINDS.items() for step in steps],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_kind_of_a_written_cell(kind: str, step: Step) -> None:
    torch.manual_seed(1)
    net = Written(step, state=2 if step is peephole else 1)

    assert kinds_in(net) == {kind}


class Answering(nn.Module):
    """A tanh cell with a sigmoid on the answer of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.head = (nn.Linear(SIZE, SIZE) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h, answers = x.new_zeros(len(x), SIZE), []
        for now in x.unbind(1):
            h = torch.tanh(self.inp(now) + self.rec(h))
            answers.append(torch.sigmoid(self.head(h)))
        return torch.stack(answers, 1)


def test_sigmoids_of_the_answers_are_no_part_of_the_step() -> None:
    assert kinds_in(Answering()) == {"cell"}


def test_a_sigmoid_cell_loses_what_the_product_of_its_jacobians_says() -> None:
    torch.manual_seed(2)
    net = Written(sigmoid).double()
    x = noise(5, STEPS, SIZE).double()
    (flow,) = scan(net, x).recurrences

    give, keep = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (net.layers["x"], net.layers["h"])
    )
    squares = np.zeros(STEPS - 1)
    for sample in x.numpy():
        h, factors = np.zeros(SIZE), []
        for now in sample:
            z = give[0] @ now + give[1] + keep[0] @ h + keep[1]
            h = 1 / (1 + np.exp(-z))
            factors.append((h * (1 - h))[:, None] * keep[0])
        # The states that calls read: the last one is that before the last step.
        product = np.eye(SIZE)
        for lag in range(STEPS - 1):
            squares[lag] += (product**2).sum()
            product = product @ factors[-2 - lag]
    hand = (np.log10(squares) - np.log10(squares[0])) / 2

    for lag, value in zip(flow.lags, flow.decades, strict=True):
        assert value.value == pytest.approx(hand[lag], abs=0.5), lag
    # No slope is above 1/4.
    steepest = np.log10(np.linalg.norm(keep[0], 2) / 4)
    assert flow.longest.value < (STEPS - 2) * steepest + 1e-9


class Highway(nn.Module):
    """h ← t·f(h) + (1 − t)·h (Srivastava et al. 2015), each with its layer or one."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        pairs = [nn.ModuleList((nn.Linear(6, 6), nn.Linear(6, 6))) for _ in range(8)]
        self.layers = nn.ModuleList([pairs[0]] * 8 if shared else pairs)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer, gate in self.layers:
            t = torch.sigmoid(gate(x))
            x = t * torch.tanh(layer(x)) + (1 - t) * x
        return self.head(x)


@pytest.mark.parametrize("shared", [False, True])
def test_a_highway_net_is_no_recurrence(shared: bool) -> None:
    assert scan(Highway(shared=shared), noise(4, 6)).recurrences == ()
