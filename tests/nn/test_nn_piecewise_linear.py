"""PiecewiseLinear (AdAct): values, starts, grids, insertion, hits, state."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.nn.oracles import lines
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.nn import Grid, PiecewiseLinear, watch_hinges

EXACT = 1e-13

GRIDS = {
    "default": Grid.uniform(),
    "even": Grid.uniform(-4, 4, 8),
    "off-centre": Grid.uniform(0.3, 5.1, 7),
    "two": Grid.uniform(-1, 1, 2),
    "given": Grid.at([-3.0, -1.0, 0.0, 0.5, 2.0]),
    "per-channel": Grid.at(torch.tensor([[-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])),
    "ragged": Grid.at(torch.tensor([[-2.0, 0.5, 2.0], [-1.0, 0.0, 3.0]])),
    "close": Grid.at([-4.0, 0.0, 1e-5, 4.0]),  # too many cells: by bisection
    "close per channel": Grid.at(torch.tensor([[-4, 0, 1e-5, 4], [-1, 0, 1, 2]])),
}
SHAPES = {
    "dense": ((50, 2), 1),
    "conv": ((4, 2, 5, 3), 1),
    "sequence": ((4, 5, 2), -1),
    "one sample": ((2,), 0),
    "blocks of samples": ((11, 2, 200, 200), 1),
    "blocks of channels": ((2, 2, 400, 500), 1),
    "parts of a channel": ((2, 2, 600, 500), 1),
    "empty": ((0, 2), 1),
}


def random_values(layer: PiecewiseLinear) -> PiecewiseLinear:
    layer = layer.double()
    nn.init.normal_(layer.values)
    return layer


def by_oracle(layer: PiecewiseLinear, x: torch.Tensor) -> torch.Tensor:
    """Returns what numpy.interp makes of each channel, at the end segments' slopes."""
    rows = x.detach().movedim(layer.channel_dim, 0)
    clamp = layer.outside == "clamp"
    done = [
        lines(
            row.flatten(),
            layer.hinges[c % len(layer.hinges)],
            layer.values[c],
            clamp=clamp,
        ).view(row.shape)
        for c, row in enumerate(rows)
    ]
    return torch.stack(done).movedim(0, layer.channel_dim)


@pytest.mark.parametrize("outside", ["linear", "clamp"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_numpy_interp(grid, shape, outside) -> None:
    size, dim = SHAPES[shape]
    placed = Grid(GRIDS[grid].positions, outside)
    layer = random_values(PiecewiseLinear(2, grid=placed, channel_dim=dim))
    x = 3 * torch.randn(size)

    found = layer(x)
    assert x.shape == found.shape
    if x.numel():
        assert (found - by_oracle(layer, x)).abs().max().item() < EXACT


@pytest.mark.parametrize("grid", ["default", "even", "off-centre", "given", "close"])
def test_passes_its_values_at_the_hinges(grid) -> None:
    layer = random_values(PiecewiseLinear(grid=GRIDS[grid]))

    assert (layer(layer.hinges) - layer.values).abs().max().item() < EXACT


@given(
    x=st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=30),
    step=st.integers(1, 4096),
    half=st.integers(1, 40),
)
def test_relu_is_exact_everywhere_to_the_last_bit(x, step, half) -> None:
    """Infinities and signs included; 0 is a hinge.

    Below the normal numbers x divided by the step may round to the hinge itself.
    """
    ends = step / 64 * half
    layer = PiecewiseLinear(grid=Grid.uniform(-ends, ends, 2 * half + 1)).float()
    points = torch.tensor(x, dtype=torch.float32)

    assert torch.equal(layer(points).nan_to_num(-1), points.relu().nan_to_num(-1))


def test_leaky_and_hard_activations_are_exact() -> None:
    x = 20 * torch.randn(1000)
    leaky = PiecewiseLinear(start="preserve", base=nn.LeakyReLU(0.3)).double()
    assert (leaky(x) - F.leaky_relu(x, 0.3)).abs().max().item() < 2e-14
    for base in (nn.Hardtanh(), nn.ReLU6(), nn.Hardsigmoid()):
        grid = Grid.uniform(-8, 8, 17)
        line = PiecewiseLinear(start="preserve", base=base, grid=grid).double()
        assert (line(x) - base(x)).abs().max().item() < 2e-14


def test_without_a_hinge_at_the_kink_relu_is_off() -> None:
    layer = PiecewiseLinear(grid=Grid.uniform(-4, 4, 8)).double()
    x = torch.linspace(-4, 4, 10001)

    # A chord over [−4/7, 4/7] is highest above ReLU at 0: 4/7 · 1/2.
    assert pytest.approx(2 / 7, rel=1e-6) == (layer(x) - x.relu()).abs().max().item()


@pytest.mark.parametrize(("hinges", "bound"), [(9, 0.0208), (17, 0.0068), (33, 0.0017)])
def test_error_of_sampling_sigmoid_is_at_most_h_squared(hinges, bound) -> None:
    grid = Grid.uniform(-6, 6, hinges)
    layer = PiecewiseLinear(start="preserve", base=nn.Sigmoid(), grid=grid).double()
    x = torch.linspace(-6, 6, 20001)
    error = (layer(x) - x.sigmoid()).abs().max().item()
    step = 12 / (hinges - 1)

    # max |σ″| = 1/(6√3).
    assert error <= step**2 / 8 / (6 * 3**0.5) * 1.001
    assert error == pytest.approx(bound, rel=0.05)


def test_starts() -> None:
    at = Grid.uniform().positions[0]
    made = {
        start: PiecewiseLinear(start=start, base=nn.Sigmoid()).values[0].double()
        for start in ("preserve", "unit-slope", "relu", "leaky", "tanh", "residual")
    }
    wanted = {
        "preserve": at.sigmoid(),
        "unit-slope": 4 * (at.sigmoid() - 0.5),
        "relu": at.relu(),
        "leaky": F.leaky_relu(at, 0.1),
        "tanh": at.tanh(),
        "residual": torch.zeros_like(at),
    }
    for start, values in wanted.items():
        assert torch.allclose(made[start], values.double(), atol=1e-6), start


@pytest.mark.parametrize("base", [nn.GELU(), nn.SiLU(inplace=True), torch.sigmoid])
def test_residual_preserves_any_base_exactly_and_trains(base) -> None:
    layer = PiecewiseLinear(3, start="residual", base=base)
    x = torch.randn(20, 3)
    wanted = base(x.clone())
    before = x.clone()

    assert torch.equal(layer(x), wanted)
    assert torch.equal(x, before)
    layer(x).sum().backward()
    assert bool((layer.values.grad != 0).any())


def test_base_with_parameters_per_channel() -> None:
    base = nn.PReLU(4)
    base.weight.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    layer = PiecewiseLinear(4, start="preserve", base=base).double()
    x = torch.randn(30, 4, 3)

    assert (layer(x) - base(x)).abs().max().item() < EXACT


@pytest.mark.parametrize("channel_dim", [None, 1])
def test_grid_from_data_covers_it_with_zero_on_it(channel_dim) -> None:
    x = torch.randn(2000, 3) * torch.tensor([0.1, 1.0, 10.0]) + torch.tensor([0, 1, 30])
    grid = Grid.covering(x, 11, channel_dim=channel_dim)
    rows = x.flatten()[None] if channel_dim is None else x.T

    assert (len(rows), 11) == tuple(grid.positions.shape)
    assert bool((grid.positions == 0).any(1).all())
    low, high = grid.positions[:, 0], grid.positions[:, -1]
    mean, reach = rows.mean(1), 3 * rows.std(1, correction=0)
    assert bool((low <= mean - reach + 1e-9).all())
    assert bool((high >= mean + reach - 1e-9).all())
    # Exact multiples of the step, in float32 too: then ReLU stays exact.
    layer = PiecewiseLinear(None if channel_dim is None else 3, grid=grid).float()
    z = x.float()
    assert torch.equal(layer(z), z.relu())


def test_insertion_preserves_the_function() -> None:
    layer = random_values(PiecewiseLinear(2, grid=GRIDS["per-channel"]))
    x = 3 * torch.randn(500, 2)
    before = layer(x)
    layer.insert_(torch.tensor([[-1.7, 0.3], [0.1, 0.2]]))
    assert (2, 5) == tuple(layer.values.shape)
    assert (layer(x) - before).abs().max().item() < EXACT
    layer.refine_()
    assert (2, 9) == tuple(layer.values.shape)
    assert (layer(x) - before).abs().max().item() < EXACT
    for taken in ([0.1], [5.0], [-9.0], [0.5, 0.5]):
        with pytest.raises(BadConfig, match="new hinges must lie between the ends"):
            layer.insert_(torch.tensor(taken))


def test_slopes_are_the_rise_between_hinges() -> None:
    layer = PiecewiseLinear(start="leaky", grid=Grid.uniform(outside="clamp"))

    assert torch.allclose(
        layer.slopes()[0].double(), torch.tensor([0.1] * 4 + [1.0] * 4)
    )


def test_hits_count_both_hinges_of_a_segment() -> None:
    layer = PiecewiseLinear(2, grid=Grid.at([-1.0, 0.0, 1.0, 2.0]))
    x = torch.tensor([[-9.0, 0.5], [0.0, 0.5], [0.2, torch.nan], [-0.1, 5.0]])

    assert [[2, 4, 2, 0], [0, 2, 3, 1]] == layer.hinge_hits(x).tolist()
    clamped = PiecewiseLinear(grid=Grid.at([-1.0, 0.0, 1.0], outside="clamp"))
    assert [[1, 0, 2]] == clamped.hinge_hits(torch.tensor([-5.0, 1.0, 9.0])).tolist()


def test_dead_hinges_are_those_without_gradient() -> None:
    model = nn.Sequential(nn.Linear(4, 3), PiecewiseLinear(3), nn.Linear(3, 1))
    line = model[1]
    with watch_hinges(model) as hits:
        for _ in range(3):
            model(torch.rand(5, 4)).sum().backward()

    assert list(hits) == ["1"]
    assert bool(((hits["1"] == 0) == (line.values.grad == 0)).all())
    assert 2 * 15 * 3 == hits["1"].sum().item()
    assert not line._forward_pre_hooks


def test_state_copies_and_types() -> None:
    layer = random_values(PiecewiseLinear(3, grid=Grid.uniform(-2.3, 2.9, 7)))
    x = torch.randn(10, 3)
    assert ["values", "hinges"] == list(layer.state_dict())
    other = PiecewiseLinear(3, grid=Grid.uniform(-9, 9, 7)).double()
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert torch.equal(twin(x), layer(x))
    positions = layer.hinges.float()
    half = copy.deepcopy(layer).half()
    assert torch.equal(half.hinges, positions)
    assert (torch.float32, torch.float16) == (half.hinges.dtype, half.values.dtype)


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (lambda: Grid.uniform(1, 1), BadConfig, "no grid of 9 hinges from 1 to 1"),
        (lambda: Grid.uniform(hinges=1), BadConfig, "no grid of 1 hinges"),
        (lambda: Grid.covering(torch.full((3,), torch.inf)), BadConfig, "no grid of 9"),
        (
            lambda: PiecewiseLinear(grid=Grid.at([0.0, 0.0, 1.0])),
            BadConfig,
            "not finite and strictly increasing",
        ),
        (
            lambda: PiecewiseLinear(3, grid=Grid.at(torch.zeros(2, 4))),
            BadConfig,
            "2 rows of hinges for 3 channels",
        ),
        (lambda: PiecewiseLinear(start="preserve"), BadConfig, "needs the activation"),
        (
            lambda: PiecewiseLinear(start="unit-slope", base=torch.square),
            BadConfig,
            "whose slope at 0 is 0",
        ),
        (
            lambda: PiecewiseLinear(3)(torch.zeros(2, 4)),
            CannotRun,
            r"PiecewiseLinear\(3\) on shape \(2, 4\)",
        ),
        (
            lambda: PiecewiseLinear()(torch.zeros(2, dtype=torch.int64)),
            CannotRun,
            "PiecewiseLinear on torch.int64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(act, kind, message) -> None:
    with pytest.raises(kind, match=message):
        act()
