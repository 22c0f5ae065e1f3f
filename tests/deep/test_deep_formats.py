"""Number formats, first steps and noise, element for element."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.deep.nets import batch, deep, mlp, normal, scanned
from vgaudit.data.batch import Loss
from vgaudit.probe.deep.exponents import ExponentSums
from vgaudit.probe.deep.updates import EPSILON, first_steps

MSE = Loss("mse", nn.functional.mse_loss)


def wide(*shape: int, seed: int = 0) -> Tensor:
    """Returns values over all of float32's range, subnormals and powers of two too."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-149, 100, shape, generator=generator)
    mantissa = 1 + torch.rand(shape, generator=generator)
    mantissa[torch.rand(shape, generator=generator) < 0.2] = 1.0
    return torch.ldexp(mantissa.double(), exponents).float()


def half(values: Tensor) -> np.ndarray:
    """Returns the values in float16, rounded by numpy."""
    with np.errstate(over="ignore"):
        return values.numpy().astype(np.float16)


def test_what_float16_loses_is_what_a_cast_loses() -> None:
    values = torch.cat([wide(5000), -wide(3000, seed=1), torch.zeros(17)])
    # The edges: half of the smallest subnormal, its neighbours, the smallest normal.
    edges = [2.0**-25, 2.0**-24, 2.0**-14, 2.0**-14 - 2.0**-25, 65504.0, 65520.0]
    near = torch.tensor(edges)
    values = torch.cat([values, near, near * (1 + 2**-20), near * (1 - 2**-20)])
    sums = ExponentSums()
    sums.add(values)
    cast, given_ = half(values), values.numpy()
    smallest = np.finfo(np.float16).tiny
    found = next(x for x in sums.losses() if x.format == "float16")

    assert round(found.zero * sums.total) == int(((cast == 0) & (given_ != 0)).sum())
    subnormal = (np.abs(cast) < smallest) & (cast != 0)
    assert round(found.subnormal * sums.total) == int(subnormal.sum())
    assert round(found.overflow * sums.total) == int(np.isinf(cast).sum())


def test_what_bfloat16_loses_is_what_rounding_its_bits_loses() -> None:
    values = wide(5000, seed=2)
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    # Round to nearest, ties to even, on the upper sixteen bits.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    magnitude = rounded & 0x7FFF
    sums = ExponentSums()
    sums.add(values)
    found = next(x for x in sums.losses() if x.format == "bfloat16")

    assert round(found.zero * sums.total) == int((magnitude == 0).sum())
    subnormal = (magnitude > 0) & (magnitude < 0x80)
    assert round(found.subnormal * sums.total) == int(subnormal.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_histogram_counts_every_element_once(dtype: torch.dtype) -> None:
    values = torch.cat([wide(4000), torch.tensor([0.0, -0.0, math.nan, -math.inf])])
    sums = ExponentSums()
    sums.add(values.to(dtype))
    found = sums.exponents()
    finite = values[torch.isfinite(values) & (values != 0)].double().numpy()
    expected = np.floor(np.log2(np.abs(finite)))

    assert (found.zeros, found.nonfinite, found.total) == (2, 2, 4004)
    for offset, count in enumerate(found.counts):
        assert count == int((expected == found.lowest + offset).sum())


@given(st.lists(st.floats(width=32), max_size=60), st.lists(st.floats(width=32)))
def test_counts_of_two_batches_merge(first: list[float], second: list[float]) -> None:
    apart, other, together = ExponentSums(), ExponentSums(), ExponentSums()
    apart.add(torch.tensor(first))
    other.add(torch.tensor(second))
    apart.merge(other)
    together.add(torch.tensor(first + second))

    assert apart.exponents() == together.exponents()
    assert apart.losses() == together.losses()
    assert apart.loss_scale() == together.loss_scale()


@given(st.integers(-60, 10), st.integers(0, 1000))
def test_the_loss_scale_is_the_smallest_that_saves(power: int, seed: int) -> None:
    values = normal(3000, seed=seed) * 2.0**power
    sums = ExponentSums()
    sums.add(values)
    scale = sums.loss_scale()

    def lost(factor: float) -> int:
        return int(((half(values * factor) == 0) & (values.numpy() != 0)).sum())

    if scale is None:
        assert power > 10
        return
    assert lost(scale) <= 3
    assert scale == 1 or lost(scale / 2) > 3


def test_a_range_that_no_scale_fits() -> None:
    sums = ExponentSums()
    sums.add(torch.tensor([1e4, 1e-12] * 500))

    assert sums.loss_scale() is None


def test_first_steps_against_the_optimizers_of_torch() -> None:
    weight, gradient = normal(300, seed=1), wide(300).clamp(max=1e3)
    gradient[:50] = 0
    sgd, adam = first_steps(weight, gradient)
    for flow, kind, rate in (
        (sgd, torch.optim.SGD, 1e-2),
        (adam, torch.optim.Adam, 1e-3),
    ):
        parameter = nn.Parameter(weight.double().clone())
        parameter.grad = gradient.double()
        kind([parameter], lr=rate).step()
        moved = parameter.detach() - weight.double()
        assert flow.learning_rate == rate
        assert flow.ratio == pytest.approx(
            float(moved.norm() / weight.double().norm()), rel=1e-5
        )
    on_floor = (gradient != 0) & (gradient.abs() <= EPSILON)
    assert adam.floor == pytest.approx(float(on_floor.double().mean()))
    assert sgd.floor == 0


def test_swallowed_steps_are_counted_one_by_one() -> None:
    weight, gradient = normal(400, seed=3), normal(400, seed=4) * 0.3
    sgd, _ = first_steps(weight, gradient)
    stayed = moving = 0
    for w, g in zip(weight.tolist(), gradient.tolist(), strict=True):
        stored = torch.tensor(w).bfloat16()
        step = 0.01 * torch.tensor(g)
        moving += int(step != 0)
        stayed += int((stored.float() - step).bfloat16() == stored)

    assert 0 < stayed < moving
    assert sgd.swallowed == pytest.approx(stayed / moving)


def test_every_parameter_of_a_scan_is_that_of_a_plain_backward_pass() -> None:
    model, x, y = mlp(4, 16, nn.Sigmoid), normal(8, 16), normal(8, 10, seed=1) * 1e-5
    found = deep(model, batch(x, labels=y), loss=MSE).precision
    nn.functional.mse_loss(model(x), y).backward()

    assert [line.name for line in found] == [n for n, _ in model.named_parameters()]
    for line, parameter in zip(found, model.parameters(), strict=True):
        assert parameter.grad is not None
        gradient = parameter.grad
        lost = ((half(gradient) == 0) & (gradient.numpy() != 0)).mean()
        assert line.elements == gradient.numel()
        assert line.lost("float16") == pytest.approx(
            float(lost), abs=1.5 / line.elements
        )


def test_signal_and_noise_against_numpy() -> None:
    model = mlp(2, 6, nn.Tanh)
    batches = [
        batch(normal(16, 6, seed=s), labels=normal(16, 10, seed=50 + s))
        for s in range(5)
    ]
    found = scanned(model, *batches, loss=MSE).deep
    assert found is not None
    rows = []
    for one in batches:
        model.zero_grad()
        MSE.function(model(*one.args), one.labels).backward()
        rows.append(
            torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double().numpy()
        )
    table = np.stack(rows)
    noise = float(table.var(0, ddof=1).sum())
    signal = float(np.square(table.mean(0)).sum()) - noise / 5
    whole = found.noise[0]

    assert (whole.name, whole.batches, whole.batch_size) == ("", 5, 16)
    assert whole.noise == pytest.approx(noise, rel=1e-4)
    assert whole.signal == pytest.approx(max(signal, 0.0), rel=1e-3, abs=1e-9)
    assert whole.noise_scale == pytest.approx(16 * noise / signal, rel=1e-3)
    assert len(found.noise) == 1 + len(list(model.parameters()))


def test_equal_batches_have_no_noise() -> None:
    x, y = normal(8, 6), normal(8, 10, seed=1)
    same = [batch(x, labels=y) for _ in range(3)]
    found = deep(mlp(2, 6, nn.Tanh), *same, loss=MSE).noise[0]

    assert found.noise < 1e-6 * found.signal
    assert found.snr > 1e6


def test_noise_needs_a_loss() -> None:
    given_ = [batch(normal(8, 6, seed=s)) for s in range(3)]

    assert deep(mlp(2, 6, nn.Tanh), *given_).noise == ()
