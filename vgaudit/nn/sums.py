"""Sums of a gradient over the segments of a piecewise linear function."""

from __future__ import annotations

import torch
from torch import Tensor

from vgaudit.nn.cut import Cut
from vgaudit.nn.mesh import Mesh

_BINS = 1 << 11
"""Bins to fill at least, by splitting each into lanes."""
_MOST_BINS = 1 << 15
"""Bins that lanes may fill at most; and to fill where atomic additions collide."""


class Sums:
    """Sums over each segment: of dLoss/dy · x for slopes, of dLoss/dy for levels.

    Large inputs split every bin into ``lanes`` that neighbouring elements take in
    turn. Neighbours mostly share a segment, and adding twice in a row to one
    memory cell waits for the first store: lanes halve the time, and keep each sum
    short, hence accurate. Blocks are added in float64.
    """

    def __init__(self, x: Tensor, mesh: Mesh) -> None:
        self._shape = (x.shape[1], mesh.segments)
        bins = x.shape[1] * mesh.segments
        cut, on_cpu = Cut(x), x.device.type == "cpu"
        self.lanes = 1
        if not (cut.single and on_cpu):
            self.lanes = _lanes(bins, _BINS if on_cpu else _MOST_BINS)
        self.starts, self.offset = mesh.starts, None
        if self.lanes > 1:
            self.offset = _lane_of(x, self.lanes, cut) * bins
            if cut.whole:  # one table for both: one addition less per block
                self.starts, self.offset = self.starts + self.offset, None
        self._bins = bins * self.lanes
        self._slope: Tensor | None = None
        self._level: Tensor | None = None

    def add(self, place: Tensor, d_y: Tensor, d_y_times_x: Tensor) -> None:
        """Adds one block, all three flat."""
        self._level = _added(self._level, self._counted(place, d_y))
        self._slope = _added(self._slope, self._counted(place, d_y_times_x))

    def totals(self) -> tuple[Tensor, Tensor]:
        """Returns dLoss/dslope and dLoss/dintercept, ``[C, S]``."""
        return self._total(self._slope), self._total(self._level)

    def _counted(self, place: Tensor, weights: Tensor) -> Tensor:
        if place.device.type == "cpu":
            return torch.bincount(place, weights, self._bins)
        # bincount waits for the device, and has no deterministic form there;
        # index_add has one under torch.use_deterministic_algorithms.
        return weights.new_zeros(self._bins).index_add_(0, place, weights)

    def _total(self, sums: Tensor | None) -> Tensor:
        assert sums is not None
        if self.lanes == 1:
            return sums.view(self._shape)
        return sums.view(self.lanes, *self._shape).sum(0, dtype=_wide(sums))


def _added(total: Tensor | None, block: Tensor) -> Tensor:
    """Returns the sum over blocks, in float64 once there are two."""
    return block if total is None else total.to(_wide(total)).add_(block)


def _wide(like: Tensor) -> torch.dtype:
    return torch.float32 if like.device.type == "mps" else torch.float64


def _lanes(bins: int, fill: int) -> int:
    """Returns a power of two: 4 or more, unless the bins would leave the cache."""
    lanes = 4
    while bins * lanes < fill:
        lanes *= 2
    while bins * lanes > _MOST_BINS and lanes > 1:
        lanes //= 2
    return lanes


def _lane_of(x: Tensor, lanes: int, cut: Cut) -> Tensor:
    """Returns the lane of every element of a block, broadcastable over it; int32."""
    axis, length = 2, cut.width
    if length < lanes and cut.whole:
        axis, length = 0, min(cut.count, x.shape[0])
    shape = [1, 1, 1]
    shape[axis] = length
    lane = torch.arange(length, dtype=torch.int32, device=x.device)
    return lane.bitwise_and_(lanes - 1).view(shape)
