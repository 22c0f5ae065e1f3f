"""Norms and sums: true at any magnitude and size, and the same in any order."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.probe.scans import activation, batch, noise, scan_all
from vgaudit.probe import norms
from vgaudit.probe.activations import KNOWN
from vgaudit.probe.interval import decades, interval
from vgaudit.probe.observe import observe
from vgaudit.probe.sums import ActivationSums, MomentSums


def exact_norm(values: Tensor) -> float:
    numbers = values.double().numpy().ravel()
    top = float(np.abs(numbers).max(initial=0.0))
    return top * math.sqrt(float(np.sum((numbers / top) ** 2))) if top else 0.0


# ------------------------------------------------------------ norms


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-24, 1e-15, 1.0, 1e15,
                                   1e19, 1e30, 3e37])  # fmt: skip
def test_a_norm_is_true_at_any_magnitude_of_float32(scale: float) -> None:
    values = (noise(1000).double() * scale).float()

    assert norms.norm(values) == pytest.approx(exact_norm(values), rel=1e-6)


@pytest.mark.parametrize(
    "size", [0, 1, 3, 8191, 8192, 8193, 100_000, 1 << 20, 3_000_000]
)
def test_a_norm_is_true_at_any_size(size: int) -> None:
    values = noise(size)

    assert norms.norm(values) == pytest.approx(exact_norm(values), rel=2e-6)
    assert float(norms.squares(values)) == pytest.approx(
        exact_norm(values) ** 2, rel=4e-6
    )


def test_a_norm_does_not_ask_for_contiguous_values() -> None:
    base = noise(300, 400, 2)
    for values in (
        base.transpose(0, 1),
        base[..., 0],
        base[::3].permute(2, 0, 1),
        torch.tensor(2.0).expand(100, 1000),
        noise(2, 16, 32, 33).to(memory_format=torch.channels_last),
        noise(50_000).as_strided((4, 20_000), (3, 1)),
    ):
        assert norms.norm(values) == pytest.approx(exact_norm(values), rel=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_norm_of_other_types_is_taken_in_float64(dtype: torch.dtype) -> None:
    values = (1000 * noise(20_000)).to(dtype)

    assert norms.norm(values) == pytest.approx(exact_norm(values), rel=1e-12)


def test_norms_of_complex_sparse_and_bad_values() -> None:
    values = torch.complex(noise(30), noise(30, seed=1))
    assert norms.norm(values) == pytest.approx(
        math.hypot(exact_norm(values.real), exact_norm(values.imag)), rel=1e-6
    )
    assert norms.norm(values.conj()) == norms.norm(values)
    at, added = torch.tensor([[1, 1, 3]]), torch.tensor([1.0, 2.0, 4.0])
    sparse = torch.sparse_coo_tensor(at, added, (9,), check_invariants=True)
    assert norms.norm(sparse) == 5.0
    assert math.isnan(norms.norm(torch.tensor([1.0, math.nan])))
    assert norms.norm(torch.tensor([1.0, -math.inf])) == math.inf
    assert norms.norm(torch.full((20_000,), 3e38)) == pytest.approx(
        3e38 * math.sqrt(20_000), rel=1e-6
    )


@given(st.lists(st.floats(0, 1e100), min_size=1, max_size=5))
def test_a_norm_of_parts_is_that_of_the_whole(parts: list[float]) -> None:
    assert norms.total(list(parts)) == pytest.approx(math.hypot(*parts))


# ------------------------------------------------------------ moments


def moments_of(values: np.ndarray) -> MomentSums:
    if not values.size:
        return MomentSums()
    deviations = values - values.mean()
    return MomentSums(
        count=values.size,
        mean=float(values.mean()),
        squares=float((deviations**2).sum()),
        low=float(values.min()),
        high=float(values.max()),
    )


numbers = st.lists(st.floats(-1e3, 1e3, width=32), max_size=12)


def close(a: MomentSums, b: MomentSums) -> bool:
    return (
        a.count == b.count
        and (a.low, a.high) == (b.low, b.high)
        and math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=1e-9)
        and math.isclose(a.squares, b.squares, rel_tol=1e-9, abs_tol=1e-6)
    )


@given(numbers, numbers, numbers)
def test_merging_moments_is_associative_and_is_one_pass(
    a: list[float], b: list[float], c: list[float]
) -> None:
    first, second, third = (moments_of(np.array(x)) for x in (a, b, c))
    left = copy.copy(first)
    left.merge(second)
    left.merge(third)
    right_half = copy.copy(second)
    right_half.merge(third)
    right = copy.copy(first)
    right.merge(right_half)
    swapped = copy.copy(third)
    swapped.merge(first)
    swapped.merge(second)

    assert close(left, right)
    assert close(left, swapped)
    assert close(left, moments_of(np.array(a + b + c)))


@pytest.mark.parametrize("size", [50, 5_000, 500_000])
@pytest.mark.parametrize(("mean", "std"), [(1e4, 0.1), (-300.0, 1.0), (0.0, 1e-6),
                                           (3.0, 1.0), (5.0, 1.0)])  # fmt: skip
def test_shifted_values_have_the_right_deviation(
    mean: float, std: float, size: int
) -> None:
    """E[x²] − m² in float32 gave a variance of −2.38 where 0.01 is right."""
    values = (mean + std * noise(size, 4).double()).float()
    seen = observe(
        "act", KNOWN["relu"], (values, values, lambda: values), axis=-1, samples=size
    ).sums({})

    exact = values.double()
    moments = seen.input.moments()
    # Rounding to float32 limits the data themselves, not what is made of them.
    assert moments.std == pytest.approx(float(exact.std(correction=0)), rel=2e-4)
    assert moments.mean == pytest.approx(float(exact.mean()), rel=1e-6, abs=1e-8)
    assert (moments.min, moments.max) == (float(values.min()), float(values.max()))


def test_constant_values_have_no_deviation() -> None:
    values = torch.full((1000, 3), 0.1)
    seen = observe(
        "act", KNOWN["tanh"], (values, values, lambda: values), axis=-1, samples=9
    ).sums({})

    assert seen.input.moments().std == pytest.approx(0.0, abs=1e-8)


# ------------------------------------------------------------ activations


def sums_of(z: Tensor, name: str) -> ActivationSums:
    call = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[name]
    known = KNOWN[name]
    out = call(z)
    assert known.slope is not None
    slope = known.slope
    return observe(
        "act", known, (z, out, lambda: slope(z, out)), axis=-1, samples=z.shape[0]
    ).sums({})


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.sampled_from(["relu", "tanh", "sigmoid"]),
    st.floats(0.01, 30),
)
@settings(max_examples=60, deadline=None)
def test_batches_merge_to_what_one_pass_sees(
    sizes: list[int], seed: int, name: str, scale: float
) -> None:
    whole = (scale * noise(sum(sizes), 5, seed=seed)).double()
    parts = [sums_of(part, name) for part in whole.split(sizes)]
    joined = parts[0]
    for part in parts[1:]:
        joined.merge(part)
    found, expected = joined.flow(), sums_of(whole, name).flow()

    for field in ("elements", "samples", "units", "dead_units", "dead_bound"):
        assert getattr(found, field) == getattr(expected, field), field
    for field in ("slope_mean_square", "saturated_low", "saturated_high", "slope_max"):
        assert getattr(found, field) == pytest.approx(getattr(expected, field)), field
    for field in ("input", "output"):
        mine, its = getattr(found, field), getattr(expected, field)
        assert mine.mean == pytest.approx(its.mean, abs=1e-12)
        assert mine.std == pytest.approx(its.std, abs=1e-12)
        assert (mine.min, mine.max) == pytest.approx((its.min, its.max), rel=1e-9)


def test_units_of_another_number_are_not_told() -> None:
    joined = sums_of(noise(4, 5), "relu")
    joined.merge(sums_of(noise(4, 7), "relu"))

    assert (joined.flow().units, joined.flow().dead_units) == (0, 0)
    assert joined.flow().elements == 48


def test_a_scan_of_two_halves_is_the_scan_of_the_whole() -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)
    )
    x = noise(20, 5)
    whole = activation(scan_all(net, [batch(x)], dtype="float64"), "1")
    halves = [batch(x[:6]), batch(x[6:])]
    parts = activation(scan_all(net, halves, dtype="float64"), "1")

    assert (parts.elements, parts.samples) == (whole.elements, whole.samples)
    assert parts.input.mean == pytest.approx(whole.input.mean, rel=1e-12)
    assert parts.input.std == pytest.approx(whole.input.std, rel=1e-12)
    assert parts.slope_mean_square == pytest.approx(whole.slope_mean_square, rel=1e-12)


# ------------------------------------------------------------ intervals


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40))
def test_an_interval_is_students(values: list[float]) -> None:
    from scipy import stats

    found = interval(values)
    mean = np.mean(values)
    half = stats.t.ppf(0.975, min(len(values) - 1, 30)) * stats.sem(values)
    assert found.n == len(values)
    assert found.value == pytest.approx(mean, abs=1e-9)
    assert found.hi - found.value == pytest.approx(half, rel=1e-3, abs=1e-9)
    assert found.value - found.lo == pytest.approx(half, rel=1e-3, abs=1e-9)


def test_intervals_of_few_and_of_endless_values() -> None:
    one = interval([-3.0])
    assert (one.value, one.lo, one.hi, one.n) == (-3.0, -3.0, -3.0, 1)
    some = interval([-math.inf, -2.0, -1.0])
    assert (some.value, some.lo, some.hi) == (-2.0, -math.inf, -1.0)
    none = interval([-math.inf, -math.inf])
    assert (none.value, none.lo, none.hi) == (-math.inf,) * 3
    assert math.isnan(interval([1.0, math.nan]).value)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


@pytest.mark.parametrize(
    ("norm", "reference", "expected"),
    [
        (1.0, 10.0, -1.0),
        (1e-320, 1.0, math.log10(1e-320)),
        (1e300, 1e-300, 600.0),
        (0.0, 2.0, -math.inf),
        (math.inf, 2.0, math.inf),
    ],
)
def test_decades(norm: float, reference: float, expected: float) -> None:
    assert decades(norm, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("norm", "reference"),
    [(1.0, 0.0), (0.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf),
     (math.inf, math.inf)],
)  # fmt: skip
def test_decades_against_nothing_and_against_infinity_are_undefined(
    norm: float, reference: float
) -> None:
    """An overflowed reference says nothing: it is no vanishing gradient."""
    assert math.isnan(decades(norm, reference))


# ------------------------------------------------------------ wide and in blocks

MANY = (1 << 17) + 12_345
"""More values than one block has."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("count", [1, 1000, MANY])
def test_norms_of_other_types_are_those_in_float64(
    dtype: torch.dtype, count: int
) -> None:
    values = noise(count).to(dtype)
    for form in (values, values.reshape(1, -1).t(), values[::2]):
        expected = float(torch.linalg.vector_norm(form.double()))
        assert expected == pytest.approx(norms.norm(form), rel=1e-12)


def test_norms_that_are_not_finite_stay_so() -> None:
    assert math.inf == norms.norm(torch.full((MANY,), 1e200, dtype=torch.float64))
    assert math.inf == norms.norm(torch.tensor([1.0, math.inf]).half())
    assert math.isnan(norms.norm(torch.tensor([1.0, math.nan]).bfloat16()))


@pytest.mark.parametrize("shift", [0.0, 1.0, -3e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_moments_of_an_input_are_those_in_float64(
    shift: float, dtype: torch.dtype
) -> None:
    values = (noise(3, MANY) + shift).to(dtype)
    kept = values.clone()
    mean, deviation = norms.mean_and_deviation(values.t())

    assert float(values.double().mean()) == pytest.approx(mean, rel=1e-12)
    expected = float(values.double().std(correction=0))
    assert expected == pytest.approx(deviation, rel=1e-9)
    assert torch.equal(kept, values)
