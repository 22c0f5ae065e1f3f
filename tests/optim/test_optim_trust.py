"""The exact trust damping against a root finder that knows nothing of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from vgaudit.optim.trust import trust_damping


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    exponents=st.tuples(st.integers(-8, 3), st.integers(-8, 8)),
    radius=st.floats(1e-3, 1e2),
    zeros=st.booleans(),
)
def test_equals_brentq(
    seed: int, exponents: tuple[int, int], radius: float, zeros: bool
) -> None:
    torch.manual_seed(seed)
    m = torch.randn(40, dtype=torch.float64) * 10.0 ** exponents[0]
    h = torch.rand(40, dtype=torch.float64) ** 4 * 10.0 ** exponents[1]
    if zeros:
        h[::3] = 0.0

    mu = trust_damping([m[:15], m[15:]], [h[:15], h[15:]], radius)

    def excess(value: float) -> float:
        return float((m / (h + value).clamp_min(1e-300)).norm()) - radius

    if excess(0.0) <= 0.0:
        assert 0.0 == mu
        return
    upper = float(m.norm()) / radius
    expected = brentq(excess, 0.0, upper * (1 + 1e-12), xtol=1e-300, rtol=1e-14)
    # Compared by what they do: μ itself is free where h dwarfs it.
    assert excess(mu) == pytest.approx(excess(expected), abs=1e-8 * radius)
    assert mu == pytest.approx(expected, rel=1e-5, abs=1e-9 * upper)


def test_nothing_seen_is_no_step() -> None:
    zero = torch.zeros(3)

    assert 0.0 == trust_damping([zero], [zero], 1.0)


def test_without_curvature_it_is_the_formula() -> None:
    m = torch.tensor([3.0, 4.0])

    assert 2.5 == pytest.approx(trust_damping([m], [torch.zeros(2)], 2.0))
