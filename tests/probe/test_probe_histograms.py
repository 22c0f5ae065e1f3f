"""Histograms of the inputs of activations, against NumPy's in float64, and by laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vgaudit import api
from vgaudit.data.batch import Batch
from vgaudit.flow import GradientFlow, Histogram
from vgaudit.job import ProbeOptions
from vgaudit.probe import histograms
from vgaudit.probe.activations import KNOWN
from vgaudit.probe.histograms import MOST, histogram, joined
from vgaudit.probe.run import probe

EDGE = 2.0 * math.atanh(math.sqrt(0.95))
"""|z| beyond which the sigmoid's slope is below a twentieth of ¼."""


def taken(values: torch.Tensor, kind: str = "sigmoid") -> Histogram:
    out = torch.sigmoid(values)
    return histogram(KNOWN[kind], values, out * (1 - out))


def edges(found: Histogram) -> np.ndarray:
    return found.start + found.width * np.arange(len(found.counts) + 1)


def draws(*, seed: int, size: int, scale: float, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(size, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1.0, 0.0), (7.3, -2.1), (1e-30, 0.0), (1e30, 0.0), (1e-3, 5.0), (300.0, 1e4)],
)
def test_counts_are_those_of_numpy(dtype, scale, shift) -> None:
    values = draws(seed=3, size=20_001, scale=scale, shift=shift).to(dtype)
    before = values.clone()

    found = taken(values)

    assert torch.equal(values, before)
    own = values.double().numpy()
    expected, _ = np.histogram(own, bins=edges(found))
    assert found.counts == tuple(expected.tolist())
    assert found.values == sum(found.counts) == values.numel()
    assert min(found.counts[0], found.counts[-1]) > 0
    assert MOST // 2 < len(found.counts) <= MOST
    assert math.frexp(found.width)[0] == 0.5


def test_saturated_values_are_those_beyond_the_rails() -> None:
    values = draws(seed=5, size=50_000, scale=4.0).double()

    found = taken(values)

    flat = values[values.abs() > EDGE].numpy()
    expected, _ = np.histogram(flat, bins=edges(found))
    assert found.saturated == tuple(expected.tolist())
    assert 0 < sum(found.saturated) < found.values


def test_what_is_not_finite_is_counted_apart() -> None:
    values = torch.tensor([math.nan, 1.0, math.inf, -math.inf, -2.0, 1.5])

    found = taken(values)

    assert found.nonfinite == 3
    assert sum(found.counts) == 3
    assert found.values == 6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_without_a_finite_value_there_is_no_bin(value) -> None:
    found = taken(torch.full((7,), value))

    assert (found.counts, found.saturated, found.nonfinite) == ((), (), 7)


@pytest.mark.parametrize("value", [0.0, -3.7, 1e-40, 2.0**100])
def test_a_constant_has_one_bin(value) -> None:
    found = taken(torch.full((9,), value))

    assert found.counts == (9,)
    assert found.start <= float(np.float32(value)) < found.start + found.width


def test_large_inputs_are_counted_piece_by_piece(monkeypatch) -> None:
    values = draws(seed=1, size=10_007, scale=2.0).reshape(1, 10_007)
    whole = taken(values)

    monkeypatch.setattr(histograms, "CHUNK", 100)

    assert taken(values) == whole


FLOATS = st.floats(width=32, allow_subnormal=True)


@given(
    st.lists(FLOATS, min_size=1, max_size=40),
    st.lists(FLOATS, min_size=1, max_size=40),
)
@settings(max_examples=300, deadline=None)
def test_joined_is_the_histogram_of_all_values(one, other) -> None:
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (one, other))

    both = joined(taken(a), taken(b))

    assert both is not None
    assert both == taken(torch.cat([a, b])) == joined(taken(b), taken(a))


def test_joining_with_nothing_changes_nothing() -> None:
    found = taken(torch.arange(5.0))

    assert joined(found, None) == joined(None, found) == found
    assert joined(None, None) is None


# ------------------------------------------------------------------- in a scan


class Wide(nn.Module):
    """Feeds its inputs to the activation as they are, and is linear besides."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 2)
        with torch.no_grad():
            self.inner.weight.copy_(torch.eye(6))
            self.inner.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.activation(self.inner(x)))


class Cube(nn.Module):
    """An activation of the user's own, whose slope only autograd knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**3


def batches(*tensors: torch.Tensor) -> list[Batch]:
    return [Batch(args=(x,), size=len(x)) for x in tensors]


def shown(flow: GradientFlow) -> Histogram:
    (found,) = [x.activation for x in flow.layers if x.activation is not None]
    assert found.histogram is not None
    return found.histogram


@pytest.mark.parametrize(
    ("activation", "flat"),
    [
        (nn.Sigmoid(), lambda z: abs(z) > EDGE),
        (nn.ReLU(), lambda z: z <= 0),
        (nn.PReLU(6, init=0.01), lambda z: z <= 0),
    ],
)
def test_a_scan_has_the_first_batch_in_its_histogram(activation, flat) -> None:
    first, second = (
        draws(seed=seed, size=600, scale=3.0).reshape(100, 6) for seed in (1, 2)
    )

    found = shown(probe(Wide(activation), batches(first, second)))

    # The identity's matmul may round in the last place: whole sets are compared.
    assert found.values == first.numel()
    expected, _ = np.histogram(first.double().numpy(), bins=edges(found))
    assert np.abs(np.array(found.counts) - expected).sum() <= 2
    share = sum(bool(flat(float(z))) for z in first.reshape(-1))
    assert abs(sum(found.saturated) - share) <= 2


def test_of_one_batch_the_marked_values_are_the_saturated_share() -> None:
    data = draws(seed=4, size=1200, scale=5.0).reshape(200, 6)

    for activation in (nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.Hardtanh(), Cube()):
        flow = probe(Wide(activation), batches(data))
        (seen,) = [x.activation for x in flow.layers if x.activation is not None]
        assert seen.histogram is not None
        assert sum(seen.histogram.saturated) == round(seen.saturated * seen.elements)


def test_where_a_zero_weight_is_replaced_its_input_is_that_measured() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    data = draws(seed=4, size=600, scale=1.0).reshape(100, 6)

    flow = probe(model, batches(data))

    (seen,) = [x.activation for x in flow.layers if x.activation is not None]
    assert flow.blockers[0].replaced
    assert seen.histogram is not None
    found = edges(seen.histogram)
    assert found[0] <= seen.input.min < found[1]
    assert found[-2] <= seen.input.max < found[-1]
    assert seen.input.min < seen.input.max


def test_measuring_again_in_another_precision_has_one_too() -> None:
    data = draws(seed=4, size=600, scale=1.0).reshape(100, 6)
    options = ProbeOptions(dtype="float64")

    assert shown(probe(Wide(nn.Tanh()), batches(data), options=options)).values == 600


def test_a_watched_step_pays_for_none() -> None:
    model = Wide(nn.Tanh())
    with api.watch(model) as probing:
        model(torch.ones(3, 6)).sum().backward()

    (seen,) = [x.activation for x in probing.flow().layers if x.activation is not None]
    assert seen.histogram is None
