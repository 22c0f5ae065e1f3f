"""Statistics of one call: the CPU's short cuts, the device's way, and numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.probe.scans import noise
from vgaudit.probe.activations import KNOWN, by_autograd
from vgaudit.probe.observe import _on_device, _on_host

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "square": torch.square,
}
VALUES = {
    "usual": noise(40, 7),
    "saturated": 30 * noise(40, 7),
    "tiny": 1e-12 * noise(40, 7),
    "shifted": 100 + 0.01 * noise(40, 7),
    "all above": noise(40, 7).abs() + 0.1,
    "all below": -noise(40, 7).abs() - 0.1,
    "zero": torch.zeros(40, 7),
    "one dead unit": noise(40, 7) - torch.tensor([0.0, 0, 0, 50, 0, 0, 0]),
    "images": noise(3, 5, 4, 4),
    "not contiguous": noise(7, 40).t(),
    "one element": torch.tensor([[0.7]]),
    "on the edge of a rail": torch.full((9, 2), 2.2),
}


def expected(name: str, z: Tensor, axis: int) -> tuple[list[float], np.ndarray]:
    """Returns the twelve figures and the living units, by numpy in float64."""
    known = KNOWN[name]
    values = z.double()
    out = CALLS[name](values).numpy()
    size = np.abs(by_autograd(CALLS[name], values).numpy())
    numbers = values.numpy()
    limit = size.max() if math.isinf(known.slope_max) else known.slope_max
    flat = size < 0.05 * max(limit, size.max())
    low = flat & (numbers <= known.steepest)
    figures: list[float] = []
    for seen in (numbers, out):
        figures += [
            seen.mean(),
            ((seen - seen.mean()) ** 2).sum(),
            seen.min(),
            seen.max(),
        ]
    figures += [(size**2).sum(), low.sum(), flat.sum() - low.sum(), size.max()]
    others = tuple(dim for dim in range(z.dim()) if dim != axis % z.dim())
    return [float(figure) for figure in figures], size.max(axis=others) > 0


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["host", "device"])
def test_both_ways_have_the_figures_of_numpy(way: str, name: str, values: str) -> None:
    known, z = KNOWN[name], VALUES[values].double()
    axis = 1 if z.dim() == 4 else -1
    out = CALLS[name](z)

    def slope() -> Tensor:
        if known.slope is not None:
            return known.slope(z, out)
        return by_autograd(CALLS[name], z)

    if way == "host":
        numbers, alive = _on_host(known, z, out, slope, axis)
    else:
        stacked, alive = _on_device(known, z, out, slope(), axis)
        numbers = stacked.tolist()

    figures, living = expected(name, z, axis)
    if math.isfinite(known.slope_max):  # where that is larger, the seen one is free
        numbers[11] = max(numbers[11], known.slope_max)
        figures[11] = max(figures[11], known.slope_max)
    # Where φ saturates, 1 − φ² has no digits left: absolutely, not relatively.
    assert numbers == pytest.approx(figures, rel=1e-9, abs=1e-9)
    if isinstance(alive, int):  # all of so many units
        alive = torch.ones(alive, dtype=torch.bool)
    assert alive is not None
    assert np.array_equal(alive.numpy(), living)


@pytest.mark.parametrize("way", [_on_host, _on_device])
def test_without_units_none_are_counted(way: Callable[..., object]) -> None:
    z = noise(5)
    slope = (z > 0).float()
    given = (lambda: slope) if way is _on_host else slope
    _, alive = way(KNOWN["relu"], z, z.relu(), given, None)  # type: ignore[misc]

    assert alive is None


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_do_not_stop_the_pass(name: str, bad: float) -> None:
    z = noise(6, 4)
    z[2, 1] = bad
    known, out = KNOWN[name], CALLS[name](z)
    numbers, _ = _on_host(known, z, out, lambda: by_autograd(CALLS[name], z), -1)
    stacked, _ = _on_device(known, z, out, by_autograd(CALLS[name], z), -1)

    assert not math.isfinite(numbers[0])
    assert not math.isfinite(stacked.tolist()[0])
    assert len(numbers) == len(stacked) == 12
