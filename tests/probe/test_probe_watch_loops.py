"""Watching a training loop: it trains bit for bit as it would alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.probe.scans import noise
from tests.probe.snapshots import differences, snapshot
from vgaudit.probe import Watch


class DropPath(nn.Module):
    """Random, without weights: it must not be called to find out what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return x * (torch.rand(x.shape[0], 1) > 0.3)


class Swish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * torch.sigmoid(x)


class Net(nn.Module):
    """Everything that draws, counts or normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.drop, self.leak = nn.Dropout(0.4), nn.RReLU()
        self.path, self.swish = DropPath(), Swish()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.leak(self.norm(self.first(x)))
        x = F.dropout(self.swish(self.path(self.drop(x))), 0.2, self.training)
        return self.last(x)


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


Loop = Callable[[nn.Module], list[Tensor]]


def plain(model: nn.Module) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(noise(8, 6, seed=step)), torch.arange(8) % 3)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def accumulating(model: nn.Module) -> list[Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for step in range(6):
        loss = model(noise(8, 6, seed=step)).square().mean() / 3
        loss.backward()
        if step % 3 == 2:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def autocast(model: nn.Module) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    losses = []
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(noise(8, 6, seed=step)), torch.arange(8) % 3)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return losses


def two_forwards(model: nn.Module) -> list[Tensor]:
    """A Siamese loss: two forward passes, one backward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        left, right = model(noise(8, 6, seed=step)), model(noise(8, 6, seed=9 + step))
        loss = (left - right).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def validating(model: nn.Module) -> list[Tensor]:
    losses = plain(model)
    model.eval()
    with torch.no_grad():
        losses.append(model(noise(4, 6)).sum())
    with torch.inference_mode():
        losses.append(model(noise(4, 6)).sum().clone())
    model.train()
    return losses + plain(model)


LOOPS = (plain, accumulating, autocast, two_forwards, validating)


def _seed() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_watched_loop_trains_bit_for_bit_as_alone(loop: Loop, every: int) -> None:
    alone, watched = net(), net()
    _seed()
    expected = loop(alone)
    after_alone = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    _seed()
    with Watch(watched, every=every) as seen:
        losses = loop(watched)

    assert all(torch.equal(a, b) for a, b in zip(expected, losses, strict=True))
    for (name, one), two in zip(
        alone.state_dict().items(), watched.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    for one, two in zip(alone.parameters(), watched.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        assert one.grad is None or torch.equal(one.grad, two.grad)
    assert alone.swish.calls == watched.swish.calls
    assert alone.path.calls == watched.path.calls
    assert torch.equal(after_alone[0], torch.get_rng_state())
    assert after_alone[1] == random.getstate()
    assert np.array_equal(after_alone[2], np.random.get_state()[1])
    assert seen.flow().batches >= 1


def test_only_hooks_are_added_and_they_are_removed() -> None:
    model = net()
    model.first.weight.register_hook(lambda grad: None)
    model.register_forward_hook(lambda m, a, out: None)
    before = snapshot(model)
    with Watch(model):
        pass

    assert differences(before, snapshot(model)) == []


def test_hooks_are_removed_when_the_loop_fails() -> None:
    model = net()
    before = snapshot(model)

    def loop() -> None:
        with Watch(model):
            model.first(noise(2, 6))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()

    assert differences(before, snapshot(model)) == []
    table = torch.nn.modules.module
    assert not table._global_forward_hooks
    assert not table._global_forward_pre_hooks


def test_hooks_are_removed_when_the_forward_fails() -> None:
    model = net()
    with Watch(model) as seen:
        with pytest.raises(RuntimeError):
            model(noise(8, 5))
        model(noise(8, 6)).sum().backward()

    assert not torch.nn.modules.module._global_forward_hooks
    assert seen.flow().batches == 1


def test_the_users_tensors_carry_no_mark() -> None:
    model, x = net(), noise(8, 6)
    with Watch(model):
        out = model(x)
        out.sum().backward()

    assert x.__dict__ == {}
    assert out.__dict__ == {}
    assert all(p.__dict__ == {} for p in model.parameters())
    assert all(b.__dict__ == {} for b in model.buffers())
