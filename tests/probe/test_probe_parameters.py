"""Figures of parameters' gradients: one implementation for scans and for loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import noise, parameters, scan
from vgaudit.probe import Watch
from vgaudit.probe.parameters import Gradients


def broken() -> Tensor:
    """Three values that are not finite, two zeros."""
    values = [0.0, 1.0, math.nan, math.inf, -2.0, 0.0, -math.inf]
    return torch.tensor(values)


@pytest.mark.parametrize("hold", [False, True])
def test_what_is_not_finite_is_counted_element_for_element(hold: bool) -> None:
    seen = Gradients(zeros=True, hold=hold)
    seen.add("whole", torch.tensor([3.0, 0.0, -4.0]))
    seen.add("broken", broken())
    found = seen.read()

    assert (5.0, 1.0, 0.0) == (
        found["whole"].norm,
        found["whole"].zeros,
        found["whole"].nonfinite,
    )
    assert (2.0, 3.0) == (found["broken"].zeros, found["broken"].nonfinite)
    assert not math.isfinite(found["broken"].norm)


@pytest.mark.parametrize("hold", [False, True])
def test_a_sparse_gradient_is_that_of_its_dense_form(hold: bool) -> None:
    places = torch.tensor([[1, 3, 1]])
    values = torch.tensor([[1.0, 2.0], [0.0, math.nan], [0.5, -2.0]])
    sparse = torch.sparse_coo_tensor(places, values, (5, 2))
    seen = [Gradients(zeros=True, hold=hold) for _ in range(2)]
    for one, gradient in zip(seen, (sparse, sparse.to_dense()), strict=True):
        one.add("rows", gradient)
    one, two = (x.read()["rows"] for x in seen)

    assert (two.zeros, two.nonfinite) == (one.zeros, one.nonfinite) == (8.0, 1.0)


def test_parts_of_one_gradient_are_summed_where_they_are_held() -> None:
    first, second = noise(4, 3), -noise(4, 3)
    second[0, 0] += 2.0
    summed, apart = Gradients(zeros=True, hold=True), Gradients(zeros=True)
    for part in (first, second):
        summed.add("w", part)
        apart.add("w", part)

    found = summed.read(scale=4.0)["w"]
    assert 0.5 == pytest.approx(found.norm)
    assert 11.0 == found.zeros
    expected = math.hypot(float(first.norm()), float(second.norm()))
    assert expected == pytest.approx(apart.read()["w"].norm)


def test_to_settle_early_changes_nothing() -> None:
    early, late = Gradients(zeros=True, hold=True), Gradients(zeros=True, hold=True)
    for seen in (early, late):
        seen.add("w", noise(5))
        if seen is early:
            seen.settle()

    assert late.read() == early.read()
    assert early.read() == early.read()


class Broken(nn.Module):
    """The gradient of one row of its first weight is not a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        # The derivative of |0|^(1/2) is infinite.
        sick = (hidden[:, :1] - hidden[:, :1].detach()).abs().sqrt()
        return self.last(torch.cat([sick, hidden[:, 1:]], 1))


def test_a_watched_loop_counts_what_a_scan_counts() -> None:
    model, x = Broken(), noise(5, 6).double()
    scanned = parameters(scan(model, x))
    with Watch(model) as seen:
        model(x).square().sum().backward()
    watched = parameters(seen.flow())

    # One row of six weights, and its bias.
    counts = {"first.weight": 6, "first.bias": 1, "last.weight": 0, "last.bias": 0}
    assert counts == {name: figure.nonfinite for name, figure in scanned.items()}
    assert counts == {name: figure.nonfinite for name, figure in watched.items()}


def test_zeros_are_counted_on_the_first_measured_pass_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[0].bias[0] = -1e3
    with Watch(model) as seen:
        model(noise(5, 6).double()).sum().backward()
        with torch.no_grad():
            model[0].bias[1] = -1e3
        model.zero_grad()
        model(noise(5, 6, seed=1).double()).sum().backward()

    # One dead unit of four on the first pass; a second one dies after it.
    assert 0.25 == parameters(seen.flow())["0.weight"].zero_fraction
