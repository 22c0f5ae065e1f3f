"""A watched loop's gradient against the lag, by the oracles of the scan's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.probe.scans import noise, scan
from tests.probe.test_probe_recurrence import (
    RADII,
    Loop,
    Plain,
    Reader,
    by_hand,
    grouped,
    norms_of,
    only,
    rails,
    twice,
)
from vgaudit.flow import GradientFlow
from vgaudit.probe import Watch, loops
from vgaudit.probe.lags import direction


def watched(model: nn.Module, x: Tensor, **options: Any) -> GradientFlow:
    with Watch(model, **options) as seen:
        model(x).square().mean().backward()
    return seen.flow()


@pytest.mark.parametrize("radius", RADII)
def test_a_watched_rnn_decays_as_the_product_of_its_jacobians(radius: float) -> None:
    net, fused, x = twice(radius)
    hand = by_hand(net, x.numpy())
    slope = np.polyfit(range(200), hand, 1)[0]
    one, two = only(watched(Reader(fused, 24).double(), x)), only(watched(net, x))
    assert ("rnn-tanh", "cell") == (one.kind, two.kind)
    for found in (one, two):
        assert found.rate.value == pytest.approx(slope, rel=0.02, abs=2e-3)
        for lag, value in zip(found.lags, found.decades, strict=True):
            assert value.value == pytest.approx(hand[lag], abs=0.35), lag
        assert (found.horizon is None) == (min(hand) >= -2)
        assert found.last_only is True


def test_a_watched_loop_has_the_gradients_of_its_states() -> None:
    torch.manual_seed(5)
    net, x = Plain(10).double(), noise(6, 12, 4).double()
    found = only(watched(net, x))

    states = net.states(x)[:-1]
    vector = direction(states[-1], 0)
    seen = torch.autograd.grad(states[-1], states[:-1], vector)
    expected = grouped(norms_of(vector, *seen[::-1]))
    assert ("rec", tuple(range(11))) == (found.layer, found.lags)
    for value, row in zip(found.decades, expected, strict=True):
        assert value.value == pytest.approx(sum(row) / len(row), abs=1e-9)


def test_saturated_gates_are_counted_inside_a_watched_kernel() -> None:
    torch.manual_seed(4)
    net = nn.LSTM(4, 8, batch_first=True)
    with torch.no_grad():
        net.weight_ih_l0.mul_(12)
    x = noise(6, 20, 4)
    found = only(watched(Reader(net, 8), x))

    low, high = rails(net, x)
    assert ["input", "forget", "cell", "output"] == [g.name for g in found.gates]
    assert low == pytest.approx([g.saturated_low for g in found.gates])
    assert high == pytest.approx([g.saturated_high for g in found.gates])


# The fused kernel has no float16 on some processors.
MIXED = [(True, torch.bfloat16), (False, torch.bfloat16), (False, torch.float16)]


@pytest.mark.parametrize(("fused", "kind"), MIXED, ids=str)
def test_mixed_precision_changes_the_decay_by_its_rounding_alone(fused, kind) -> None:
    torch.manual_seed(6)
    cell = nn.LSTM(4, 16, batch_first=True) if fused else nn.LSTMCell(4, 16)
    net = Reader(cell, 16) if fused else Loop(cell, 16)
    x = noise(8, 20, 4)
    with Watch(net) as seen, torch.autocast("cpu", kind):
        net(x).float().square().mean().backward()

    exact, found = only(scan(net, x)), only(seen.flow())
    assert exact.rate.value == pytest.approx(found.rate.value, rel=0.03)
    assert exact.longest.value == pytest.approx(found.longest.value, abs=0.2)


# ----------------------------------------------------- training stays as it is


class Noisy(nn.Module):
    """Everything in and around a recurrent layer that draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(10)
        self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.3, batch_first=True)
        self.cell, self.head = nn.GRUCell(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state: Tensor | None = None
        for now in self.lstm(self.norm(x))[0].unbind(1):
            state = F.dropout(self.cell(now, state), 0.1, self.training)
        return self.head(state)


class Doubled(torch.autograd.Function):
    """An operation of the user's own, which counts its backward passes."""

    passes = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.5

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Doubled.passes += 1
        return gradient * 1.5


class Steps(nn.Module):
    """A loop whose steps do something that one more backward pass would repeat."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.cell, self.head = nn.RNNCell(4, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8, momentum=0.5)
        self.kept: list[Tensor] = []
        self.heard = 0

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 8)
        self.kept = []
        for now in x.unbind(1):
            state = self._step(now, state)
        return self.head(state)

    def _step(self, now: Tensor, state: Tensor) -> Tensor:
        if self.way == "checkpoint":
            return checkpoint(self._normed, now, state, use_reentrant=False)
        if self.way == "reentrant":
            return checkpoint(self._normed, now, state, use_reentrant=True)
        state = self.cell(now, state)
        if self.way == "retain_grad":
            state.retain_grad()
        elif self.way == "hook":
            state.register_hook(self._hear)
        elif self.way == "function":
            state = Doubled.apply(state)
        self.kept.append(state)
        return state

    def _normed(self, now: Tensor, state: Tensor) -> Tensor:
        return self.norm(self.cell(now, state))

    def _hear(self, gradient: Tensor) -> None:
        self.heard += 1


def train(model: nn.Module) -> list[Tensor]:
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        x = noise(6, 10, 4, seed=step).requires_grad_()
        loss = F.cross_entropy(model(x), torch.arange(6) % 3)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def alike(one: nn.Module, two: nn.Module) -> bool:
    both = zip(one.parameters(), two.parameters(), strict=True)
    grads = [(a.grad, b.grad) for a, b in both if a.grad is not None]
    states = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in (*states, *grads))


@pytest.mark.parametrize("every", [1, 2])
def test_recurrent_training_is_bit_for_bit_that_of_an_unwatched_loop(every) -> None:
    torch.manual_seed(0)
    alone = Noisy()
    model = copy.deepcopy(alone)
    expected, drawn = train(alone), torch.get_rng_state()
    with Watch(model, every=every) as seen:
        losses = train(model)

    assert all(torch.equal(a, b) for a, b in zip(expected, losses, strict=True))
    assert alike(alone, model)
    assert torch.equal(drawn, torch.get_rng_state())
    names = [flow.layer for flow in seen.flow().recurrences]
    assert ["lstm l0", "lstm l1", "cell"] == names


WAYS = {
    "retain_grad": "retain_grad would keep another gradient",
    "hook": "a hook on a tensor would run once more",
    "function": "Doubled would run its own backward once more",
    "checkpoint": "saved tensors would be unpacked (checkpointed, loaded …) once more",
}


@pytest.mark.parametrize("way", [*WAYS, "reentrant"])
def test_a_loop_that_would_notice_is_left_alone(way: str) -> None:
    torch.manual_seed(0)
    alone = Steps(way)
    model = copy.deepcopy(alone)
    Doubled.passes = 0
    expected = train(alone)
    passes, heard = Doubled.passes, alone.heard
    with Watch(model) as seen:
        losses = train(model)
    flow = seen.flow()

    assert all(torch.equal(a, b) for a, b in zip(expected, losses, strict=True))
    assert alike(alone, model)
    assert (2 * passes, heard) == (Doubled.passes, model.heard)
    if way == "retain_grad":
        pairs = zip(alone.kept, model.kept, strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    assert () == flow.recurrences
    said = {x.path: x.reason for x in flow.not_measured}
    if way in WAYS:
        assert f"its gradient against the lag: {WAYS[way]}" == said["cell: lags"]
    else:
        assert "checkpointed segments" in said


def test_loops_are_gone_through_on_the_first_pass_alone(monkeypatch) -> None:
    torch.manual_seed(1)
    asked = []
    measure = loops.measure
    monkeypatch.setattr(
        loops, "measure", lambda *args: asked.append(1) or measure(*args)
    )
    model = Loop(nn.GRUCell(4, 8), 8)
    with Watch(model) as seen:
        model(noise(6, 10, 4))  # without a backward pass it is no measurement
        for step in range(3):
            model(noise(6, 10, 4, seed=step)).sum().backward()

    assert 2 == len(asked)
    assert 3 == seen.flow().batches
    assert 1 == len(seen.flow().recurrences)


def test_memory_that_runs_out_ends_no_training(monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(loops, "measure", fails)
    flow = watched(Loop(nn.GRUCell(4, 8), 8), noise(6, 10, 4))

    assert () == flow.recurrences
    assert any("out of memory" in x.reason for x in flow.not_measured)
