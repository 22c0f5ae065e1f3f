"""The published claims about AR that hold, and those that do not."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.nn.oracles import affine_at
from vgaudit.nn import Denominator, Inputs, auto_rotate

LIMIT = 4.0


def vertices(low: float, high: float, n: int) -> torch.Tensor:
    corners = list(itertools.product((low, high), repeat=n))
    return torch.tensor(corners, dtype=torch.float64)


@pytest.mark.parametrize("q", ["xq-min", "xq-max"])
def test_counterexample_to_the_bound_of_the_paper(q) -> None:
    """|z| ≤ L is false for weights of both signs: f(x_Q) nearly cancels."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -0.9]])
    how = Denominator(q, floor=0)
    rotated = auto_rotate(layer, limit=LIMIT, denominator=how, inputs=(0, 1))

    worst = rotated(vertices(0, 1, 2)).abs().max().item()
    # f(x_Q) = q·0.1 with q = −1 or 2; the largest |f| on the box is f(1, 0) = 1.
    assert LIMIT / (0.1 if q == "xq-min" else 0.2) == pytest.approx(worst)
    assert worst > 4 * LIMIT


@pytest.mark.parametrize("q", ["xq-min", "xq-max"])
def test_the_bound_of_the_paper_fails_for_most_random_units(q) -> None:
    layer = nn.Linear(784, 100, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    bound = layer.weight.sum(1).abs() / 2 + layer.weight.abs().sum(1) / 2
    how = Denominator(q, floor=0)
    rotated = auto_rotate(layer, limit=LIMIT, denominator=how, inputs=(0, 1))

    assert (rotated.rho() * bound > LIMIT).double().mean().item() > 0.95


def test_where_the_bound_of_the_paper_holds() -> None:
    """Weights of one sign, no bias: 2·max − min bounds; 2·min − max need not."""
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data.abs_()
    corners = vertices(0.2, 1.0, 4)
    worst = {}
    for q in ("xq-max", "xq-min"):
        rotated = auto_rotate(
            nn.Linear(4, 3, bias=False),
            limit=LIMIT,
            denominator=Denominator(q, floor=0),
            inputs=(0.2, 1.0),
        )
        rotated.weight.data = layer.weight.data
        worst[q] = rotated(corners).abs().max().item()

    assert worst["xq-max"] <= LIMIT
    # On [0.2, 1], f(x_Q) = −0.6·sum and the maximum is 1·sum.
    assert LIMIT / 0.6 == pytest.approx(worst["xq-min"])


def test_ar_changes_the_activations_it_is_said_to_keep() -> None:
    """Signs of pre-activations stay; the function does not, unless L = D."""
    layer = nn.Linear(6, 4)
    x = torch.randn(50, 6)
    before = layer(x)
    rotated = auto_rotate(layer, limit=LIMIT)

    assert bool((rotated(x).sign() == before.sign()).all())
    assert not torch.allclose(rotated(x).sigmoid(), before.sigmoid(), atol=0.1)


@given(
    n=st.integers(1, 10),
    low=st.floats(-3, 2),
    width=st.floats(0.1, 4),
    seed=st.integers(0, 10**6),
)
def test_interval_bounds_every_vertex_and_attains_the_bound(
    n, low, width, seed
) -> None:
    torch.manual_seed(seed)
    layer = auto_rotate(
        nn.Linear(n, 5),
        limit=LIMIT,
        denominator="interval",
        inputs=(low, low + width),
    )
    worst = layer(vertices(low, low + width, n)).abs().amax(0)

    assert bool((worst <= LIMIT * (1 + 1e-12)).all())
    assert bool((worst >= LIMIT * (1 - 1e-9)).all())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.ConvTranspose2d(2, 3, 3, 2, 1),
    ],
    ids=["padding", "same", "transposed"],
)
def test_interval_holds_at_padded_borders_too(layer) -> None:
    """On [0.5, 1] zeros that pad lie outside the range: it is widened to them."""
    rotated = auto_rotate(
        layer.to(torch.float64), limit=LIMIT, denominator="interval", inputs=(0.5, 1)
    )
    z = rotated(torch.zeros(1, 2, 4, 4))
    worst = torch.zeros_like(z)
    for place in itertools.product(*map(range, z.shape[2:])):
        weights = affine_at(rotated, torch.full((2, 4, 4), 0.75), place)
        middle = rotated(torch.full((1, 2, 4, 4), 0.75))[(0, slice(None), *place)]
        reach = 0.25 * weights.flatten(1).abs().sum(1)
        worst[(0, slice(None), *place)] = middle.abs() + reach

    assert worst.max().item() <= LIMIT * (1 + 1e-12)


def test_moments_keep_their_probability() -> None:
    """Hoeffding for a range (k = 2: ≤ 27 %), Chebyshev for moments (k = 3: ≤ 11 %)."""
    uniform = torch.rand(4000, 64)
    ranged = auto_rotate(nn.Linear(64, 50), limit=LIMIT, inputs=(0, 1))
    over = (ranged(uniform).abs() > LIMIT).double().mean(0)
    assert over.max().item() <= 0.27

    signs = torch.randint(0, 2, (4000, 64)) * 2.0 - 1
    measured = auto_rotate(
        nn.Linear(64, 50), limit=LIMIT, inputs=Inputs.moments(0.0, 1.0)
    )
    over = (measured(signs).abs() > LIMIT).double().mean(0)
    assert over.max().item() <= 1 / 9


def test_correlated_inputs_break_what_moments_promise() -> None:
    """The promise assumes independence: one common factor, and 27 % is far off."""
    layer = nn.Linear(400, 40, bias=False)
    layer.weight.data = torch.full_like(layer.weight, 0.05)
    rotated = auto_rotate(layer, limit=LIMIT, inputs=(-1, 1))
    common = (torch.rand(2000, 1) * 2 - 1).expand(2000, 400)

    assert (rotated(common).abs() > LIMIT).double().mean().item() > 0.8


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv1d(6, 4, 3)])
def test_batch_norm_behind_the_layer_cancels_ar(layer) -> None:
    x = torch.randn(16, 6, *([9] if isinstance(layer, nn.Conv1d) else []))
    norm = nn.BatchNorm1d(4, eps=1e-300)
    before = norm(layer.to(torch.float64)(x))
    after = norm(auto_rotate(layer, limit=LIMIT)(x))

    assert (after - before).abs().max().item() < 1e-12


def test_floor_keeps_rho_finite_where_the_fixed_point_cancels() -> None:
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -1.0, 2.0, -2.0]])
    free = auto_rotate(
        nn.Linear(4, 1, bias=False),
        denominator=Denominator("xq-max", floor=0, epsilon=1e-5),
        inputs=(0, 1),
    )
    free.weight.data = layer.weight.data
    floored = auto_rotate(layer, denominator="xq-max", inputs=(0, 1))

    assert 4.0 / 1e-5 == pytest.approx(free.rho().item())
    # D of moments: |Σw/2| + 2·(1/2)·‖w‖₂ = √10; a tenth of it is the floor.
    assert 4.0 / (0.1 * 10**0.5) == pytest.approx(floored.rho().item())


def test_reference_border_reproduces_the_authors() -> None:
    """L·f / (|f(x_Q)| + 1e-5) with f(x_Q) a map: it varies along a padded border."""
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x, q = torch.rand(2, 3, 6, 6), 2.0
    f, at_q = layer(x), layer(torch.full((1, 3, 6, 6), q))
    how = Denominator("xq-max", border="reference", floor=0, epsilon=1e-5)
    rotated = auto_rotate(layer, limit=LIMIT, denominator=how, inputs=(0, 1))

    wanted = LIMIT * f / (at_q.abs() + 1e-5)
    assert torch.allclose(rotated(x), wanted, rtol=1e-12, atol=0)
    interior = at_q[0, :, 2, 2].abs() + 1e-5
    assert torch.allclose(rotated.denominator(), interior, rtol=1e-12)
    assert not torch.allclose(at_q[0, :, 0, 0], at_q[0, :, 2, 2])
