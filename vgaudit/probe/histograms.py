"""Histograms of the inputs of activations, on the first batch alone.

A count for each bin costs several reads of the data and, on a GPU, waits for the
device; the measured steps of later batches have none of it.

The width of the bins is a power of two that follows from the range of the values and
from nothing else: the least one for which ``MOST`` bins hold them all. So z / width is
exact in every floating-point type, and joining the histograms of two sets of values,
where the bins of the finer one are added up in twos, gives the histogram of both sets
together, count for count. (Values so small that z / width underflows count as 0.)
"""

from __future__ import annotations

import math
from dataclasses import replace
from operator import add

import torch
from torch import Tensor

from vgaudit.flow import Histogram
from vgaudit.probe.activations import SATURATION, Activation

MOST = 32
"""Bins at most; of a range that is no point, there are more than half as many."""

CHUNK = 1 << 20
"""Values that are counted at once: the temporary tensors stay small."""

_DIGITS = 20
"""Bins are not finer than 2⁻²⁰ of the largest value: float32 knows no more."""

_FINEST = -1000
"""The least exponent of a width, so that an edge is never subnormal."""

_SAFE = 100
"""Up to 2^100 and its inverse, float32 scales exactly."""


def histogram(activation: Activation, z: Tensor, slope: Tensor) -> Histogram:
    """Returns the histogram of the inputs of one call, the saturated ones marked.

    Args:
        activation: what is known of φ.
        z: float32 or float64, any shape, at least one element.
        slope: φ′(z), of the same shape.
    """
    z, size = z.detach().reshape(-1), slope.detach().reshape(-1).abs()
    kept = z
    if not all(map(math.isfinite, _ends(z))):
        whole = torch.isfinite(z)
        kept, size = z[whole], size[whole]
    if not kept.numel():
        return Histogram(
            start=0.0, width=1.0, counts=(), saturated=(), nonfinite=z.numel()
        )
    low, high = _ends(kept)
    exponent = _exponent(low, high)
    first, last = _bin(low, exponent), _bin(high, exponent)
    steep, flat = _counted(
        kept, size < _edge(activation, size), exponent=exponent, ends=(first, last)
    )
    return Histogram(
        start=math.ldexp(first, exponent),
        width=math.ldexp(1.0, exponent),
        counts=tuple(map(add, steep, flat)),
        saturated=flat,
        nonfinite=z.numel() - kept.numel(),
    )


def joined(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    """Returns the histogram of the values of both; batches and ranks alike."""
    if one is None or other is None:
        return one or other
    nonfinite = one.nonfinite + other.nonfinite
    if not one.counts or not other.counts:
        return replace(one if one.counts else other, nonfinite=nonfinite)
    exponent = max(_width(one), _width(other))
    while True:
        coarse = [_coarser(found, exponent) for found in (one, other)]
        first = min(start for start, _, _ in coarse)
        last = max(start + len(counts) for start, counts, _ in coarse)
        if last - first <= MOST:
            break
        exponent += 1
    counts, saturated = [0] * (last - first), [0] * (last - first)
    for start, every, flat in coarse:
        for place, (n, few) in enumerate(zip(every, flat, strict=True), start - first):
            counts[place] += n
            saturated[place] += few
    return Histogram(
        start=math.ldexp(first, exponent),
        width=math.ldexp(1.0, exponent),
        counts=tuple(counts),
        saturated=tuple(saturated),
        nonfinite=nonfinite,
    )


def _coarser(found: Histogram, exponent: int) -> tuple[int, list[int], list[int]]:
    """Returns the first bin, and both counts, in bins of 2^``exponent``."""
    own = _width(found)
    start = _bin(found.start, own)
    first = start >> exponent - own
    size = (start + len(found.counts) - 1 >> exponent - own) - first + 1
    counts, saturated = [0] * size, [0] * size
    pairs = zip(found.counts, found.saturated, strict=True)
    for place, (n, flat) in enumerate(pairs, start):
        counts[(place >> exponent - own) - first] += n
        saturated[(place >> exponent - own) - first] += flat
    return first, counts, saturated


def _width(found: Histogram) -> int:
    """Returns the exponent of the width: frexp's mantissa of a power of two is ½."""
    return math.frexp(found.width)[1] - 1


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float) -> int:
    """Returns the least exponent for which ``MOST`` bins hold the whole range."""
    largest = max(-low, high)
    # Halves first: the range of float64 values may be beyond float64.
    half = high / 2 - low / 2
    least = [_FINEST]
    least += [math.frexp(largest)[1] - _DIGITS] if largest else []
    least += [math.frexp(half / MOST)[1]] if half else []
    exponent = max(least)
    while _bin(high, exponent) - _bin(low, exponent) >= MOST:
        exponent += 1
    return exponent


def _ends(values: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(values)
    return float(low), float(high)


def _edge(activation: Activation, size: Tensor) -> float:
    """Returns the |φ′| below which a value counts as saturated."""
    limit, top = activation.slope_max, float(size.amax())
    return SATURATION * (top if math.isinf(limit) else max(limit, top))


def _counted(
    z: Tensor, flat: Tensor, *, exponent: int, ends: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the values in each bin that are not saturated, and those that are."""
    first, last = ends
    size = last - first + 1
    total = torch.zeros(2 * size, dtype=torch.int64, device=z.device)
    scale = math.ldexp(1.0, -exponent)
    wide = z.double() if abs(exponent) > _SAFE else z
    for start in range(0, wide.numel(), CHUNK):
        some, few = wide[start : start + CHUNK], flat[start : start + CHUNK]
        # Bytes hold 2 · MOST bins, and are several times faster than int64.
        place = some.mul(scale).floor_().sub_(first).to(torch.uint8)
        place = place.add_(few, alpha=size)
        total += torch.bincount(place, minlength=2 * size)
    found = total.tolist()
    return tuple(found[:size]), tuple(found[size:])
