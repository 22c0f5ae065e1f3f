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
        cut = Cut(x)
        on_cpu = x.device.type == "cpu"
        self.lanes = 1
        if cut.blocks > 1 or not on_cpu:
            self.lanes = _lanes(bins, _BINS if on_cpu else _MOST_BINS)
        self.starts = mesh.starts
        if self.lanes > 1:
            self.starts = self.starts + _lane_of(x, self.lanes, cut.count) * bins
        self._bins = bins * self.lanes
        self._slopes: list[Tensor] = []
        self._levels: list[Tensor] = []

    def add(self, place: Tensor, d_y: Tensor, d_y_times_x: Tensor) -> None:
        """Adds one block, all three flat."""
        if place.device.type == "cpu":
            self._levels.append(torch.bincount(place, d_y, self._bins))
            self._slopes.append(torch.bincount(place, d_y_times_x, self._bins))
            return
        # bincount waits for the device, and has no deterministic form there;
        # index_add has one under torch.use_deterministic_algorithms.
        empty = d_y.new_zeros(self._bins)
        self._levels.append(empty.index_add(0, place, d_y))
        self._slopes.append(empty.index_add(0, place, d_y_times_x))

    def totals(self) -> tuple[Tensor, Tensor]:
        """Returns dLoss/dslope and dLoss/dintercept, ``[C, S]``."""
        return self._total(self._slopes), self._total(self._levels)

    def _total(self, blocks: list[Tensor]) -> Tensor:
        if len(blocks) == 1 and self.lanes == 1:
            return blocks[0].view(self._shape)
        wide = torch.float32 if blocks[0].device.type == "mps" else torch.float64
        total = torch.stack(blocks).sum(0, dtype=wide)
        return total.view(self.lanes, *self._shape).sum(0)


def _lanes(bins: int, fill: int) -> int:
    """Returns a power of two: 4 or more, unless the bins would leave the cache."""
    lanes = 4
    while bins * lanes < fill:
        lanes *= 2
    while bins * lanes > _MOST_BINS and lanes > 1:
        lanes //= 2
    return lanes


def _lane_of(x: Tensor, lanes: int, samples: int) -> Tensor:
    """Returns the lane of every element of a block, broadcastable over it; int32."""
    inner = x.shape[2]
    axis, length = (2, inner) if inner >= lanes else (0, min(samples, x.shape[0]))
    shape = [1, 1, 1]
    shape[axis] = length
    lane = torch.arange(length, dtype=torch.int32, device=x.device)
    return lane.bitwise_and_(lanes - 1).view(shape)
