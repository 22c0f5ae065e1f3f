"""Evaluates piecewise linear functions block by block, with reused scratch memory.

Index, table look-up and sums run on blocks that fit the cache, so that apart
from the result nothing of the input's size is allocated, and the cost per
element does not depend on the number of hinges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vgaudit.nn.mesh import Mesh, bisect, finite_bounds

_BLOCK = 1 << 17
"""Elements per block and thread: measured best on 1 MB of second-level cache."""
_BINS = 1 << 11
"""Bins to fill at least, by splitting each into lanes."""
_MOST_BINS = 1 << 15
"""Bins that lanes may fill at most."""
_MOST_LANES = 64


class Cut:
    """How tensors ``[outer, channels, inner]`` are cut into blocks, all alike.

    A block holds whole samples where one fits, else channels of one sample, so
    that it is contiguous in memory. On a GPU, all is one block.
    """

    def __init__(self, x: Tensor) -> None:
        outer, channels, inner = x.shape
        size = _BLOCK * torch.get_num_threads() if x.device.type == "cpu" else x.numel()
        self._whole = channels * inner <= size
        self._outer = outer
        one = channels * inner if self._whole else inner
        self.count = max(1, size // max(1, one))

    @property
    def blocks(self) -> int:
        """How many blocks there are, of whole samples; else more than one."""
        return -(-self._outer // self.count) if self._whole else 2

    def of(self, x: Tensor) -> Sequence[Tensor]:
        """Returns the blocks of ``x``, in order."""
        if self._whole:
            return torch.split(x, self.count) if self._outer > self.count else (x,)
        samples = torch.split(x, 1)
        return [part for one in samples for part in torch.split(one, self.count, 1)]

    def rows(self, table: Tensor) -> Iterator[Tensor]:
        """Yields each block's rows of a table ``[…, 1 or channels, any]``, for ever."""
        if self._whole or table.shape[-2] == 1:
            return itertools.repeat(table)
        return itertools.cycle(torch.split(table, self.count, -2))


class Scratch:
    """Buffers by name and shape: two shapes at most, of full and of last blocks."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self._device = like.device
        self._dtype = dtype
        self._buffers: dict[tuple[str, torch.Size], Tensor] = {}

    def get(
        self, name: str, shape: torch.Size, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Returns the buffer, not filled."""
        buffer = self._buffers.get((name, shape))
        if buffer is None:
            buffer = torch.empty(shape, dtype=dtype or self._dtype, device=self._device)
            self._buffers[name, shape] = buffer
        return buffer

    def cast(self, x: Tensor, name: str) -> Tensor:
        """Returns ``x`` in the type of the computation."""
        if x.dtype == self._dtype:
            return x
        return self.get(name, x.shape).copy_(x)

    def store(
        self, out: Tensor, operation: Callable[..., Tensor], *args: Tensor
    ) -> None:
        """Writes ``operation(*args)`` to ``out``, through a buffer if types differ."""
        if out.dtype == self._dtype:
            operation(*args, out=out)
        else:
            out.copy_(operation(*args, out=self.get("stored", out.shape)))


class Finder:
    """Finds the place of every x of a block in the flat table of all channels.

    Args:
        mesh: the segments, in the type to compute in.
        cut: the blocks.
        starts: as of the mesh, or by lanes; broadcastable over a block.
    """

    def __init__(self, mesh: Mesh, cut: Cut, starts: Tensor) -> None:
        self._mesh = mesh
        self._low = -mesh.shift
        self._high = float(mesh.segments - 1 - mesh.shift)
        self._starts = cut.rows(starts)
        self._steps, self._origins = cut.rows(mesh.step), cut.rows(mesh.origin)
        self._hinges = cut.rows(mesh.hinges)

    def next(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Returns the places of the next block, int32, flat."""
        index = scratch.get("index", x.shape, torch.int32)
        if self._mesh.uniform:
            self._divide(x, index, scratch.get("u", x.shape))
        else:
            found = bisect(x, next(self._hinges), clamp=self._mesh.clamp)
            index.copy_(found).add_(self._low)
        start = next(self._starts)
        if start.dim() == 3 and 1 < start.shape[0] != x.shape[0]:
            start = start[: x.shape[0]]
        return index.add_(start).view(-1)

    def _divide(self, x: Tensor, index: Tensor, u: Tensor) -> None:
        step, origin = next(self._steps), next(self._origins)
        if self._mesh.centred:
            torch.div(x, step, out=u)
        else:
            torch.sub(x, origin, out=u).div_(step)
        # A float beyond the integers, and NaN, converts to the least integer:
        # so clamp above before the conversion, and below after it. NaN ends in
        # the first segment, where its value is NaN again.
        u.floor_().clamp_max_(self._high)
        index.copy_(u).clamp_min_(self._low)


def evaluate(
    x: Tensor, slope: Tensor, intercept: Tensor, mesh: Mesh, *, out: Tensor
) -> None:
    """Writes ``slope·x + intercept`` of the segment of each x.

    Args:
        x: ``[outer, C, inner]``, contiguous.
        slope: ``[C, S]``.
        intercept: ``[C, S]``.
        mesh: the segments, in the type of the tables.
        out: where to, of the shape and type of ``x``.
    """
    cut, scratch = Cut(x), Scratch(x, slope.dtype)
    finder = Finder(mesh, cut, mesh.starts)
    # One gather of pairs is faster than two gathers of numbers.
    pairs = torch.complex(slope, intercept).reshape(-1)
    bounds = _bounds(slope, cut)
    for part, y in zip(cut.of(x), cut.of(out), strict=True):
        values = scratch.cast(part, "x")
        place = finder.next(values, scratch)
        pair = scratch.get("pair", part.shape, pairs.dtype)
        torch.index_select(pairs, 0, place, out=pair.view(-1))
        if bounds is not None:
            low, high = next(bounds)
            inside = torch.maximum(values, low, out=scratch.get("inside", part.shape))
            values = torch.minimum(inside, high, out=inside)
        tilt, level = torch.view_as_real(pair).unbind(-1)
        scratch.store(y, torch.addcmul, level, tilt, values)


def differentiate(
    x: Tensor, grad: Tensor, slope: Tensor, mesh: Mesh, *, sums: Sums | None
) -> Tensor:
    """Returns dLoss/dx = dLoss/dy · slope, and adds to ``sums`` for the tables.

    Args:
        x: ``[outer, C, inner]``, contiguous.
        grad: dLoss/dy, of the same shape and layout.
        slope: ``[C, S]``.
        mesh: the segments, in the type of the tables.
        sums: where dLoss/dtables is gathered; None for frozen values.
    """
    result = torch.empty_like(x)
    cut, scratch = Cut(x), Scratch(x, slope.dtype)
    finder = Finder(mesh, cut, mesh.starts if sums is None else sums.starts)
    slope_row = slope.reshape(-1)
    if sums is not None and sums.lanes > 1:
        slope_row = slope_row.repeat(sums.lanes)
    for part, d_part, out in zip(cut.of(x), cut.of(grad), cut.of(result), strict=True):
        values, d_y = scratch.cast(part, "x"), scratch.cast(d_part, "grad")
        place = finder.next(values, scratch)
        # Gather into scratch, not into the result: it stores one element at a
        # time, which is slow into memory that is not in the cache.
        buffer = scratch.get("u", part.shape)
        if sums is not None:
            product = torch.mul(values, d_y, out=buffer)
            sums.add(place, d_y.view(-1), product.view(-1))
        torch.index_select(slope_row, 0, place, out=buffer.view(-1))
        scratch.store(out, torch.mul, buffer, d_y)
    return result


class Sums:
    """Sums over each segment: of dLoss/dy · x for slopes, of dLoss/dy for levels.

    With more than one block, every bin is split into ``lanes`` that neighbouring
    elements take in turn. Neighbours mostly share a segment, and adding twice in
    a row to one memory cell waits for the first store: lanes made the sums up to
    four times as fast, and keep each of them short, hence accurate. Blocks are
    added in float64.
    """

    def __init__(self, x: Tensor, mesh: Mesh) -> None:
        self._shape = (x.shape[1], mesh.segments)
        bins = x.shape[1] * mesh.segments
        cut = Cut(x)
        self.lanes = _lanes(bins) if cut.blocks > 1 else 1
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


def _lanes(bins: int) -> int:
    """Returns a power of two: 4 or more, unless the bins would leave the cache."""
    lanes = 4
    while bins * lanes < _BINS and lanes < _MOST_LANES:
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


def _bounds(slope: Tensor, cut: Cut) -> Iterator[tuple[Tensor, Tensor]] | None:
    """Returns, per block, the bounds that ``0 · ±inf`` needs; None: no end is flat.

    Looking costs nothing on a CPU; elsewhere it would wait for the device.
    """
    ends = slope[:, :: max(1, slope.shape[1] - 1)]
    if slope.device.type == "cpu" and bool(ends.all()):
        return None
    low, high = finite_bounds(slope)
    return zip(cut.rows(low), cut.rows(high), strict=False)
