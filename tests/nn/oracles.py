"""Second implementations, slow and obvious, that know nothing of vgaudit's.

A layer is a black box here: D comes from its output on chosen inputs and from the
derivative of one interior output element, not from its weight tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


def interior(layer: Layer, shape: tuple[int, ...], margin: int) -> Iterator[Tensor]:
    """Yields index tuples of output elements that no border reaches."""
    spatial = layer(torch.zeros(1, *shape)).shape[2:]
    ranges = [range(margin, size - margin) for size in spatial]
    yield from itertools.product(*ranges)


def affine_at(layer: Layer, x: Tensor, place: tuple[int, ...]) -> Tensor:
    """Returns d output[:, place] / dx, ``[units, *x.shape]``: the unit's weights."""

    def at_place(x: Tensor) -> Tensor:
        return layer(x.unsqueeze(0))[(0, slice(None), *place)]

    return torch.autograd.functional.jacobian(at_place, x)


def denominator(
    layer: Layer,
    shape: tuple[int, ...],
    stats: tuple[float, float],
    kind: str,
    k: float,
    *,
    margin: int = 0,
) -> Tensor:
    """Returns D per unit: the largest over the interior output elements.

    Args:
        layer: any affine layer, ``[1, *shape]`` to ``[1, units, ...]``.
        shape: of one input without batch.
        stats: low and high of every input.
        kind: as in ``Denominator``.
        k: for ``moments``, on half the range.
        margin: output elements at each border to leave out.
    """
    low, high = stats
    mid, rad = (low + high) / 2, (high - low) / 2
    points = {"xq-min": 2 * low - high, "xq-max": 2 * high - low}
    found = []
    for place in interior(layer, shape, margin):
        if kind in points:
            at = layer(torch.full((1, *shape), points[kind]))
            found.append(at[(0, slice(None), *place)].abs())
            continue
        level = layer(torch.full((1, *shape), mid))[(0, slice(None), *place)].abs()
        weights = affine_at(layer, torch.full(shape, mid), place).flatten(1)
        spread = weights.abs().sum(1) if kind == "interval" else None
        if spread is None:
            spread = k * weights.square().sum(1).sqrt()
        found.append(level + rad * spread)
    return torch.stack(found).amax(0).detach()


def lstm(layer: nn.LSTM, x: Tensor, rho: Tensor) -> Tensor:
    """Returns the outputs of a one-layer LSTM whose gates are ρ·f, ``[T, B, H]``."""
    h = torch.zeros(x.shape[1], layer.hidden_size)
    c = torch.zeros_like(h)
    outputs = []
    for step in x:
        f = step @ layer.weight_ih_l0.T + layer.bias_ih_l0
        f = f + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
        i, g_forget, g, o = (rho * f).chunk(4, 1)
        c = g_forget.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def gru(layer: nn.GRU, x: Tensor, rho: Tensor) -> Tensor:
    """Returns the outputs of a one-layer GRU whose gates are ρ·f, ``[T, B, H]``."""
    h = torch.zeros(x.shape[1], layer.hidden_size)
    outputs = []
    for step in x:
        from_x = (step @ layer.weight_ih_l0.T + layer.bias_ih_l0).chunk(3, 1)
        from_h = (h @ layer.weight_hh_l0.T + layer.bias_hh_l0).chunk(3, 1)
        rows = rho.chunk(3)
        r = (rows[0] * (from_x[0] + from_h[0])).sigmoid()
        z = (rows[1] * (from_x[1] + from_h[1])).sigmoid()
        n = (rows[2] * (from_x[2] + r * from_h[2])).tanh()
        h = (1 - z) * n + z * h
        outputs.append(h)
    return torch.stack(outputs)


def lines(x: Tensor, hinges: Tensor, values: Tensor, *, clamp: bool) -> Tensor:
    """Returns the piecewise linear function of ``x`` ``[n]`` by ``numpy.interp``.

    Beyond the hinges, unless clamped, the end segments go on.
    """
    points, ns, a = (t.detach().numpy() for t in (x, hinges, values))
    y = np.interp(points, ns, a)
    if not clamp:
        left = (a[1] - a[0]) / (ns[1] - ns[0])
        right = (a[-1] - a[-2]) / (ns[-1] - ns[-2])
        y = np.where(points < ns[0], a[0] + left * (points - ns[0]), y)
        y = np.where(points > ns[-1], a[-1] + right * (points - ns[-1]), y)
    return torch.from_numpy(y)


def lines_by_hats(x: Tensor, hinges: Tensor, values: Tensor) -> Tensor:
    """Returns Σ a_m·hat_m(x) for x between the hinges, differentiable by autograd."""
    total = torch.zeros_like(x)
    for m in range(len(hinges)):
        hat = torch.ones_like(x)
        if m > 0:
            rise = (x - hinges[m - 1]) / (hinges[m] - hinges[m - 1])
            hat = torch.where(x < hinges[m], rise, hat)
            hat = torch.where(x < hinges[m - 1], 0.0, hat)
        if m + 1 < len(hinges):
            fall = (hinges[m + 1] - x) / (hinges[m + 1] - hinges[m])
            hat = torch.where(x >= hinges[m], fall, hat)
            hat = torch.where(x >= hinges[m + 1], 0.0, hat)
        total = total + values[m] * hat
    return total
