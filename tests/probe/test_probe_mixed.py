"""Checkpointed segments, accumulated batches and mixed precision against autograd."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.probe.scans import activation, noise, parameters, scan
from vgaudit.data.batch import Loss
from vgaudit.flow import GradientFlow
from vgaudit.probe import Watch

Segment = Callable[[nn.Module, Tensor], Tensor]


def bare(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def reentrant(module: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(module, x, use_reentrant=True)


def retraced(module: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(module, x, use_reentrant=False)


class Shared(nn.Module):
    """One block in two segments and once in the open: its gradient is a sum of three.

    Each segment runs it twice and may hold another segment.
    """

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.segment = segment
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.segment(self._twice, x)
        x = self.block(x)
        x = self.segment(self._nested, x)
        return self.last(x)

    def _twice(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))

    def _nested(self, x: Tensor) -> Tensor:
        return self.segment(self.inner, self.block(x))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, float]:
    """Returns the norm of each parameter's gradient, in one call of autograd."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()))
    return {n: float(g.double().norm()) for n, g in zip(named, found, strict=True)}


def norms_of(flow: GradientFlow) -> dict[str, float]:
    return {name: figure.grad_norm for name, figure in parameters(flow).items()}


MSE = Loss("mse", lambda out, labels: F.mse_loss(out, labels))
SEGMENTS = (bare, reentrant, retraced)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_shared_weights_of_segments_are_counted_once_each_use_by_scan(segment) -> None:
    x, y = noise(5, 6).double(), noise(5, 3, seed=1).double()
    plain = Shared(bare).double()
    expected = gradients(plain, F.mse_loss(plain(x), y))

    flow = scan(Shared(segment).double(), x, loss=MSE, labels=y)

    assert expected == pytest.approx(norms_of(flow), rel=1e-9)
    samples = {r.activation.samples for r in flow.layers if r.activation is not None}
    assert {5} == samples


@pytest.mark.parametrize("segment", SEGMENTS)
def test_shared_weights_of_segments_are_counted_once_each_use_by_watch(segment) -> None:
    x, y = noise(5, 6).double(), noise(5, 3, seed=1).double()
    plain, model = Shared(bare).double(), Shared(segment).double()
    expected = gradients(plain, F.mse_loss(plain(x), y))

    with Watch(model) as seen:
        F.mse_loss(model(x), y).backward()
    flow = seen.flow()

    assert expected == pytest.approx(norms_of(flow), rel=1e-9)
    assert 1 == flow.batches
    samples = {r.activation.samples for r in flow.layers if r.activation is not None}
    assert {5} == samples


@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_segment_that_is_watched_itself_counts_once(segment) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)).double()
    x = noise(4, 6).double().requires_grad_()
    expected = gradients(block, block(x).square().sum())
    with Watch(block, every=2) as seen:
        for _ in range(3):
            segment(block, x).square().sum().backward()
    flow = seen.flow()

    assert (2, 8) == (flow.batches, flow.samples)
    assert 8 == activation(flow, "1").samples
    assert expected == pytest.approx(norms_of(flow), rel=1e-9)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_accumulated_batches_are_measured_each_by_itself(segment) -> None:
    """The gradients of a batch, not what has gathered in ``.grad`` until then."""
    model, plain = Shared(segment).double(), Shared(bare).double()
    inputs = [noise(5, 6, seed=n).double() for n in range(4)]
    sizes = [gradients(plain, plain(x).square().mean() / 4) for x in inputs]
    expected = {name: math.fsum(s[name] for s in sizes) / 4 for name in sizes[0]}

    with Watch(model) as seen:
        for x in inputs:
            (model(x).square().mean() / 4).backward()
    whole = sum(plain(x).square().mean() / 4 for x in inputs)

    assert expected == pytest.approx(norms_of(seen.flow()), rel=1e-9)
    assert (4, 20) == (seen.flow().batches, seen.flow().samples)
    # The user's own sum is whole.
    summed = gradients(plain, whole)
    for name, parameter in model.named_parameters():
        assert summed[name] == pytest.approx(float(parameter.grad.norm()), rel=1e-9)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_clipping_afterwards_changes_no_figure(segment) -> None:
    x = noise(5, 6).double()
    plain, model = Shared(bare).double(), Shared(segment).double()
    expected = gradients(plain, plain(x).square().sum())

    with Watch(model) as seen:
        model(x).square().sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        for parameter in model.parameters():
            parameter.grad.zero_()

    assert expected == pytest.approx(norms_of(seen.flow()), rel=1e-9)


# ------------------------------------------------------------ mixed precision


class Mixed(nn.Module):
    """Opens autocast itself, as a model that is scanned must."""

    def __init__(self, kind: torch.dtype | None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind = kind
        self.net = nn.Sequential(
            nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        with cast(self.kind):
            return self.net(x).float()


@contextlib.contextmanager
def cast(kind: torch.dtype | None) -> Iterator[None]:
    if kind is None:
        yield
        return
    with torch.autocast("cpu", dtype=kind):
        yield


HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("kind", HALVES, ids=str)
def test_a_model_under_autocast_has_the_gradients_of_autograd(kind) -> None:
    model, x, y = Mixed(kind), noise(8, 6), noise(8, 3, seed=1)
    expected = gradients(model, F.mse_loss(model(x), y))

    flow = scan(model, x, loss=MSE, labels=y)

    assert expected == pytest.approx(norms_of(flow), rel=1e-5)
    plain = Mixed(None)
    full = gradients(plain, F.mse_loss(plain(x), y))
    assert full != pytest.approx(norms_of(flow), rel=1e-5)
    assert full == pytest.approx(norms_of(flow), rel=0.1)


class Scaled:
    """A loop in half precision: its loss is scaled, as a scaler does."""

    def __init__(self, kind: torch.dtype, scale: float, segment: Segment) -> None:
        torch.manual_seed(2)
        self.model: Any = nn.Sequential(
            nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
        )
        self.kind, self.segment = kind, segment
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, number: int, parts: int) -> dict[str, float]:
        """Takes a step; returns the mean over its parts of the unscaled norms."""
        self.optimizer.zero_grad()
        seen: dict[str, float] = {}
        for part in range(parts):
            x = noise(8, 6, seed=10 * number + part).requires_grad_()
            with torch.autocast("cpu", self.kind):
                loss = self.segment(self.model, x).float().square().mean() / parts
            before = self._grads()
            self.scaler.scale(loss).backward()
            scale = self.scaler.get_scale()
            for name, grad in self._grads().items():
                size = float((grad - before.get(name, 0.0)).norm()) / scale
                seen[name] = seen.get(name, 0.0) + size / parts
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return seen

    def _grads(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {n: p.grad.double().clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("kind", HALVES, ids=str)
def test_a_scaled_loop_is_stated_without_its_scale(kind, segment, parts) -> None:
    """The scale doubles every other step; the mean of the steps knows each."""
    loop = Scaled(kind, 2.0**8, segment)
    alone = copy.deepcopy(loop)
    expected: dict[str, float] = {}
    steps = [alone.step(number, parts) for number in range(4)]
    for name in steps[0]:
        expected[name] = math.fsum(step[name] for step in steps) / len(steps)

    with Watch(loop.model, scaler=loop.scaler) as seen:
        for number in range(4):
            loop.step(number, parts)
    flow = seen.flow()

    assert 2.0**10 == loop.scaler.get_scale()
    assert 4 * parts == flow.batches
    # What gathers in float32 is subtracted from what had gathered before.
    assert expected == pytest.approx(norms_of(flow), rel=1e-4)
    for one, two in zip(alone.model.parameters(), loop.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_step_that_overflows_in_half_precision_is_left_out(segment) -> None:
    loop = Scaled(torch.float16, 2.0**40, segment)
    with Watch(loop.model, scaler=loop.scaler) as seen:
        for number in range(40):
            loop.step(number, 1)
            if loop.scaler.get_scale() < 2.0**12:
                break
        flow = seen.flow()

    assert flow.skipped > 0
    assert flow.batches > 0
    assert all(p.nonfinite == 0 for p in parameters(flow).values())
    assert all(0 < p.grad_norm < 10 for p in parameters(flow).values())
