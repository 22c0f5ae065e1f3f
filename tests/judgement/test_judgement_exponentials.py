"""VG203 on exponentials: recognised by their slope, counted along the trunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import audit, noise, scan
from vgaudit.judge import Policy, judge

SIZE = 8


class Unit(nn.Module):
    """Somebody's own activation, whatever they call it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def net(*units: Callable[[Tensor], Tensor] | nn.Module) -> nn.Module:
    """Returns linear layers of small weights with units between them."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for unit in units:
        layers += [nn.Linear(SIZE, SIZE)]
        layers += [unit if isinstance(unit, nn.Module) else Unit(unit)]
    whole = nn.Sequential(*layers, nn.Linear(SIZE, 3))
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.2)
    return whole


def named(model: nn.Module) -> tuple[str, ...]:
    """Returns the layers that an error of VG203 names."""
    report = judge(audit(scan(model, noise(32, SIZE))), Policy())
    return tuple(
        path
        for finding in report.findings
        if finding.code == "VG203" and finding.level == "error"
        for path in finding.layers
    )


def test_the_fourth_exponential_of_one_is_infinite() -> None:
    towers = [1.0]
    for _ in range(3):
        towers.append(math.exp(towers[-1]))

    assert all(after > before for before, after in pairwise(towers))
    assert math.isfinite(towers[-1])
    with pytest.raises(OverflowError):
        math.exp(towers[-1])
    assert torch.tensor(towers[-1], dtype=torch.float64).exp().isinf()


def test_four_exponentials_are_an_error_and_three_are_not() -> None:
    assert named(net(*[torch.exp] * 4)) == ("1", "3", "5", "7")
    assert named(net(*[torch.exp] * 3)) == ()


def test_an_exponential_is_known_by_its_slope() -> None:
    powers = [lambda x: math.e**x, lambda x: torch.pow(math.e, x)]

    assert named(net(*powers * 2)) == ("1", "3", "5", "7")


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
    "elu": nn.functional.elu,
    "identity": lambda x: x + 0.0,
    "square": torch.square,
    "sigmoid far below zero": lambda x: torch.sigmoid(x - 20.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_units_are_no_exponentials(name: str) -> None:
    assert named(net(*[OTHERS[name]] * 5)) == ()


def test_what_keeps_the_signal_ends_a_row_of_exponentials() -> None:
    parts = [torch.exp, torch.exp, nn.LayerNorm(SIZE), torch.exp, torch.exp]
    squashed = [torch.exp, torch.exp, torch.tanh, torch.exp, torch.exp]

    assert named(net(*parts)) == ()
    assert named(net(*squashed)) == ()
