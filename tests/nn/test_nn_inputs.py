"""What reaches a layer: ranges, moments, and how they are found."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from vgaudit.errors import BadConfig
from vgaudit.nn import ACTIVATIONS, Denominator, Inputs, activation, auto_rotate


def test_moments_behind_a_norm_are_those_of_its_output() -> None:
    norm = nn.BatchNorm1d(3, eps=1e-12)
    norm.weight.data = torch.tensor([2.0, -0.5, 1.0])
    norm.bias.data = torch.tensor([1.0, -1.0, 0.0])
    found = Inputs.after_norm(norm)
    wanted = Inputs.observed(norm(torch.randn(1000, 3) * 5 + 2))

    assert torch.allclose(found.center, wanted.center, atol=1e-9)
    assert torch.allclose(found.spread, wanted.spread, rtol=1e-9)
    bare = Inputs.after_norm(nn.LayerNorm(3, elementwise_affine=False))
    assert (0.0, 1.0) == (bare.center.item(), bare.spread.item())
    with pytest.raises(BadConfig, match="Linear is no normalisation"):
        Inputs.after_norm(nn.Linear(2, 2))


def test_observed_moments_per_channel() -> None:
    x = torch.randn(50, 4, 6) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    found = Inputs.observed(x)
    last = Inputs.observed(x.movedim(1, -1), channel_dim=-1)

    assert torch.allclose(found.center, x.mean((0, 2)))
    assert torch.allclose(
        found.spread, x.transpose(0, 1).flatten(1).std(1, correction=0)
    )
    assert torch.allclose(found.spread, last.spread)


def test_dropout_widens_as_it_does_in_training() -> None:
    mean, std, p = 0.7, 0.5, 0.25
    x = torch.randn(400_000) * std + mean
    dropped = nn.functional.dropout(x, p)
    found = Inputs.moments(mean, std).with_dropout(p)
    assert pytest.approx(dropped.std().item(), rel=0.01) == found.spread.item()
    assert mean == found.center.item()

    ranged = Inputs.range(0.5, 1.0).with_dropout(0.5)
    low, high = ranged.center - ranged.spread, ranged.center + ranged.spread
    assert (0.0, 2.0) == (low.item(), high.item())
    assert Inputs.range(0, 1).with_dropout(0.0).spread.item() == 0.5
    with pytest.raises(BadConfig, match="dropout of 1"):
        Inputs.range(0, 1).with_dropout(1)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "prelu"])
def test_range_behind_an_activation_holds_all_its_output(name) -> None:
    found = Inputs.after_activation(name, 3.0)
    y = _function(name)(torch.linspace(-3, 3, 6001))
    low, high = found.center - found.spread, found.center + found.spread

    assert low.item() - 1e-6 <= y.min().item() <= low.item() + 1e-6
    assert high.item() - 1e-6 <= y.max().item() <= high.item() + 1e-6


def test_range_behind_an_activation_without_a_limit() -> None:
    whole = Inputs.after_activation("arctan")

    assert pytest.approx(torch.pi / 2) == whole.spread.item()
    with pytest.raises(BadConfig, match="the output of relu has no bound"):
        Inputs.after_activation("relu")


def test_inputs_per_channel_reach_grouped_convolutions_in_order() -> None:
    mean, std = torch.arange(6.0), torch.arange(1.0, 7.0)
    layer = nn.Conv1d(6, 4, 1, groups=2, bias=False)
    rotated = auto_rotate(layer, inputs=Inputs.moments(mean, std))
    wanted = []
    for unit, group in zip(range(4), (0, 0, 1, 1), strict=True):
        level = power = 0.0
        for i in range(3):
            w, j = layer.weight[unit, i, 0].item(), 3 * group + i
            level += w * mean[j].item()
            power += (w * std[j].item()) ** 2
        wanted.append(abs(level) + 3 * power**0.5)

    assert torch.allclose(rotated.denominator(), torch.tensor(wanted), rtol=1e-12)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    for low, high in ((1, 0), (0, torch.inf), (torch.nan, 1)):
        with pytest.raises(BadConfig, match="inputs with center"):
            Inputs.range(low, high)
    with pytest.raises(BadConfig, match="inputs with center"):
        Inputs.moments(torch.zeros(2, 2), 1.0)


@pytest.mark.parametrize("kind", ["interval", "xq-min", "xq-max"])
def test_a_range_is_needed_where_moments_say_nothing(kind) -> None:
    with pytest.raises(BadConfig, match="needs a range of inputs, not moments"):
        auto_rotate(nn.Linear(2, 2), denominator=kind, inputs=Inputs.moments(0.0, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "median"}, "no denominator 'median'"),
        ({"kind": "xq"}, "q=None with the denominator 'xq'"),
        ({"kind": "moments", "q": 2.0}, r"q=2.0 with the denominator 'moments'"),
        ({"k": -1.0}, "must not be negative"),
        ({"border": "reference"}, "border='reference' with the denominator 'moments'"),
    ],
)
def test_denominators_that_make_no_sense_are_refused(options, message) -> None:
    with pytest.raises(BadConfig, match=message):
        Denominator(**options)


def test_k_follows_what_is_known_of_the_inputs() -> None:
    how = Denominator()

    assert (2.0, 3.0) == (how.factor("range"), how.factor("moments"))
    assert Denominator(k=1.5).factor("range") == 1.5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_table_of_activations_tells_the_truth(name) -> None:
    """Range, kinks and straight lines, each against the function itself."""
    row = activation(name)
    function = _function(name)
    x = torch.linspace(-30, 30, 60001)
    y = function(x)
    if row.low > -torch.inf:
        assert y.min().item() >= row.low - 1e-9
        assert pytest.approx(row.low, abs=0.04) == y.min().item()
    if row.high < torch.inf:
        assert y.max().item() <= row.high + 1e-9
        assert pytest.approx(row.high, abs=0.04) == y.max().item()
    pieces = itertools.pairwise([-29.0, *row.kinks, 29.0])
    straight = all(_is_straight(function, a, b) for a, b in pieces)
    assert row.piecewise_linear is straight


def _function(name):
    if name == "prelu":
        return lambda x: nn.functional.prelu(x, torch.tensor([0.2]))
    return getattr(nn.functional, name, None) or getattr(torch, name)


def _is_straight(function, low: float, high: float) -> bool:
    ends = torch.tensor([low, high])
    a, b = function(ends)
    t = torch.linspace(0, 1, 101)
    return torch.allclose(function(low + t * (high - low)), a + t * (b - a), atol=1e-9)


def test_names_are_found_by_their_aliases() -> None:
    assert activation("arctan") is ACTIVATIONS["atan"]
    assert pytest.approx(torch.pi / 2) == activation("arctan").high
    assert activation("Swish") is ACTIVATIONS["silu"]
    with pytest.raises(BadConfig, match="no defaults for the activation 'snake'"):
        activation("snake")
