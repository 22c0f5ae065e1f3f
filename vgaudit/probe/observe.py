"""The statistics of one activation call on one batch.

On the CPU two numbers, the range of z, are read first: most counts are then
known to be zero without looking at the data again. Elsewhere nothing is read
before the end of the batch, so that the device is never waited for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.probe import norms
from vgaudit.probe.activations import SATURATION, Activation
from vgaudit.probe.norms import NEAR
from vgaudit.probe.sums import ActivationSums, MomentSums

# The spread follows from slopes of values that are at least this far from one half.
_REST = 1e-3
_COUNTABLE = 1 << 24
_FLOATS = struct.Struct("ff")


@dataclass(slots=True)
class Observation:
    """One activation call on one batch, perhaps still on its device.

    Attributes:
        key: which call.
        activation: which function.
        numbers: mean, squared deviation, min and max of z and of φ(z), then
            Σφ′², the two saturated counts and the largest |φ′|.
        count: elements. samples: samples in the batch.
        alive: per unit, whether any slope was non-zero, or the number of units where
            all were; None if unknown.
    """

    key: str
    activation: Activation
    numbers: Tensor | list[float]
    count: int
    samples: int
    alive: Tensor | int | None

    def sums(self, full: dict[int, Tensor]) -> ActivationSums:
        """Returns the same as mergeable sums; waits for the device.

        Args:
            full: number of units → flags of so many units that are alive.
        """
        alive = self.alive
        if isinstance(alive, int):
            if alive not in full:
                full[alive] = torch.ones(alive, dtype=torch.bool)
            alive = full[alive]
        n = self.numbers.tolist() if isinstance(self.numbers, Tensor) else self.numbers
        return ActivationSums(
            activation=self.activation,
            input=MomentSums(self.count, n[0], n[1], n[2], n[3]),
            output=MomentSums(self.count, n[4], n[5], n[6], n[7]),
            slope_squares=n[8],
            low=n[9],
            high=n[10],
            slope_max=n[11],
            samples=self.samples,
            alive=None if alive is None else alive.cpu(),
        )


def observe(
    key: str,
    activation: Activation,
    values: tuple[Tensor, Tensor, Callable[[], Tensor]],
    *,
    axis: int | None,
    samples: int,
) -> Observation:
    """Returns the statistics of one activation call.

    Args:
        key: name of the call.
        activation: what is known of φ.
        values: pre-activation z, φ(z), and how to get φ′(z); all of one shape.
        axis: dimension that runs over units, None if unknown.
        samples: samples in the batch.
    """
    z, out, slope = values
    numbers: Tensor | list[float]
    alive: Tensor | int | None
    if not z.is_cpu:
        numbers, alive = _on_device(activation, z, out, slope(), axis)
    else:
        numbers, alive = _on_host(activation, z, out, slope, axis)
    return Observation(key, activation, numbers, z.numel(), samples, alive)


def sums_of(observations: Iterable[Observation]) -> dict[str, ActivationSums]:
    """Returns the sums of every call, by its key."""
    full: dict[int, Tensor] = {}
    return {seen.key: seen.sums(full) for seen in observations}


# ------------------------------------------------------------------ device


def _on_device(
    activation: Activation, z: Tensor, out: Tensor, slope: Tensor, axis: int | None
) -> tuple[Tensor, Tensor | None]:
    size = slope.abs()
    top = size.amax()
    low, both = _saturated(activation, z, size, top)
    figures = [*_moments(z), *_moments(out), norms.squares(size), low, both - low, top]
    numbers = torch.stack([figure.double() for figure in figures])
    return numbers, None if axis is None else _per_unit(size, axis) > 0


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns mean, summed squared deviation, min and max as 0-d tensors.

    Two passes: the deviation is taken from the mean before it is squared.
    """
    flat = values.reshape(-1)
    mean = flat.mean()
    low, high = torch.aminmax(flat)
    return mean, norms.squares(flat - mean), low, high


def _saturated(
    activation: Activation, z: Tensor, size: Tensor, top: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns how many elements are on the low rail, and how many on either."""
    limit = activation.slope_max
    flat = size < SATURATION * top.clamp(min=0.0 if math.isinf(limit) else limit)
    below = z <= activation.steepest
    return (flat & below).sum().double(), flat.sum().double()


def _per_unit(size: Tensor, axis: int) -> Tensor:
    """Returns the largest value of every unit.

    The dimensions behind the axis go first: all at once takes four times as long.
    """
    axis %= size.dim()
    behind, before = range(axis + 1, size.dim()), range(axis)
    if behind:
        size = size.amax(tuple(behind))
    return size.amax(tuple(before)) if before else size


def _host_saturated(
    activation: Activation, z: Tensor, size: Tensor, top: float, high: float
) -> tuple[float, float]:
    """Returns how many elements are on the low rail, and how many on the high one.

    Comparisons are written as numbers and multiplied: on a CPU that is many times
    faster than logical operations and counts of truth values. ``size`` is written
    over.

    Args:
        activation: which function.
        z: pre-activations.
        size: magnitudes of the slope.
        top: the largest of them.
        high: the largest z.
    """
    limit = activation.slope_max
    edge = SATURATION * (top if math.isinf(limit) else max(top, limit))
    flat = torch.lt(size, edge, out=size)
    both = _count(flat)
    one_rail = high <= activation.steepest or (activation.steep_above and top <= limit)
    if not both or one_rail:
        return both, 0.0
    below = torch.le(z, activation.steepest, out=torch.empty_like(flat))
    low = _count(below.mul_(flat))
    return low, both - low


def _count(flags: Tensor) -> float:
    """Returns the sum of zeros and ones, exactly: float32 counts up to 2²⁴."""
    if flags.numel() <= _COUNTABLE:
        return flags.sum().item()
    flat = flags.reshape(-1)
    starts = range(0, flat.numel(), _COUNTABLE)
    return math.fsum(float(flat[at : at + _COUNTABLE].sum()) for at in starts)


# -------------------------------------------------------------------- host


def _on_host(
    activation: Activation,
    z: Tensor,
    out: Tensor,
    slope: Callable[[], Tensor],
    axis: int | None,
) -> tuple[list[float], Tensor | int | None]:
    flat = norms.flat(z)
    least, largest = torch.aminmax(flat)
    low, high = least.item(), largest.item()
    before = (*_mean_and_squares(flat), low, high)
    flat = norms.flat(out)
    if activation.rising is not None:
        ends = _rounded(activation.rising, low, high, out.dtype)
    else:
        least, largest = torch.aminmax(flat)
        ends = least.item(), largest.item()
    rails = activation.rails
    unsaturated = rails is not None and rails[0] < low and high < rails[1]
    if unsaturated:
        steep = norms.flat(slope())
        rest = [norms.squares_of(steep), 0.0, 0.0, 0.0]
        alive: Tensor | int | None = None if axis is None else z.shape[axis]
        if activation.name == "sigmoid":
            return [*before, *_of_sigmoid(flat, steep), *ends, *rest], alive
    elif activation.name == "relu":
        rest, alive = _relu(z, low, high, axis)
    else:
        rest, alive = _by_slope(activation, z, slope(), high, axis)
    return [*before, *_mean_and_squares(flat), *ends, *rest], alive


def _of_sigmoid(flat: Tensor, slope: Tensor) -> tuple[float, float]:
    """Returns the mean and the summed squared deviation of s = sigmoid(z).

    The slope s·(1 − s) is ¼ − (s − ½)², so its sum gives the deviation from ½, which
    is where the mean is. Where that is too small a rest of the quarter, s is read.
    """
    count = flat.numel()
    spread = 0.25 * count - slope.sum().item()
    mean: float = flat.sum().item() / count
    offset = mean - 0.5
    raised = count * offset * offset
    squares = spread - raised
    if spread > _REST * count and squares * NEAR * NEAR > raised:
        return mean, squares
    return _mean_and_squares(flat)


def _by_slope(
    activation: Activation, z: Tensor, slope: Tensor, high: float, axis: int | None
) -> tuple[list[float], Tensor | None]:
    """Returns what follows from φ′, which is written over."""
    # A slope that is spread over strides of zero cannot be written to.
    size = slope.abs_() if slope.is_contiguous() else slope.abs()
    largest = size if axis is None else _per_unit(size, axis)
    top = largest.amax().item()
    alive = None if axis is None else largest > 0
    squares = norms.sum_squares(size)
    return [squares, *_host_saturated(activation, z, size, top, high), top], alive


def _relu(
    z: Tensor, low: float, high: float, axis: int | None
) -> tuple[list[float], Tensor | None]:
    """φ′ is 0 or 1: one count says everything, and the range may even that."""
    count = z.numel()
    if low > 0 or high <= 0:
        active = float(count) if low > 0 else 0.0
    else:
        active = _count(torch.gt(z, 0, out=torch.empty_like(z)))
    alive = None if axis is None else _per_unit(z, axis) > 0
    return [active, count - active, 0.0, 1.0 if active else 0.0], alive


def _rounded(
    rising: Callable[[float], float], low: float, high: float, dtype: torch.dtype
) -> tuple[float, float]:
    """Returns φ of both ends of a range as a tensor of that type would hold it."""
    if dtype is torch.float64:
        return rising(low), rising(high)
    ends: tuple[float, float] = _FLOATS.unpack(_FLOATS.pack(rising(low), rising(high)))
    return ends


def host_moments(values: Tensor) -> tuple[float, float, float, float]:
    """Returns mean, summed squared deviation, min and max."""
    flat = norms.flat(values)
    least, largest = torch.aminmax(flat)
    return (*_mean_and_squares(flat), least.item(), largest.item())


def _mean_and_squares(flat: Tensor) -> tuple[float, float]:
    """Returns the mean and the summed squared deviation from it.

    Where the mean is within a few deviations of zero, Σx² − n·mean² in float64
    loses nothing; elsewhere the deviation is taken first.
    """
    count = flat.numel()
    mean: float = flat.sum().item() / count
    raised = count * mean * mean
    squares = norms.squares_of(flat) - raised
    if not squares * NEAR * NEAR > raised:
        squares = norms.squares_of(flat - mean)
    return mean, squares
