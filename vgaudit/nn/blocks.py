"""Evaluates piecewise linear functions block by block, with reused scratch memory.

Index, table look-up and sums run on blocks that fit the cache, so that apart
from the result nothing of the input's size is allocated, and the cost per
element does not depend on the number of hinges.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vgaudit.nn.cut import Cut, Scratch
from vgaudit.nn.mesh import Mesh, bisect, finite_bounds
from vgaudit.nn.sums import Sums


class Finder:
    """Finds the place of every x of a block in the flat table of all channels.

    Args:
        mesh: the segments, in the type to compute in.
        cut: the blocks.
        sums: whose lanes to count in; None for the table of the mesh itself.
    """

    def __init__(self, mesh: Mesh, cut: Cut, sums: Sums | None = None) -> None:
        starts = mesh.starts if sums is None else sums.starts
        self._offset = None if sums is None else sums.offset
        self._mesh = mesh
        self._low, count = -mesh.shift, mesh.segments
        if mesh.first is not None and mesh.border is not None:
            count = mesh.first.shape[1]
            rows = torch.arange(len(mesh.first), dtype=torch.int32).to(starts.device)
            self._rows = cut.rows((rows * count).unsqueeze(1))
            self._first, self._border = mesh.first.view(-1), mesh.border.view(-1)
        self._high = float(count - 1 - mesh.shift)
        self._starts, self._hinges = cut.rows(starts), cut.rows(mesh.hinges)
        self._steps, self._origins = cut.rows(mesh.step), cut.rows(mesh.origin)

    def next(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Returns the places of the next block, int32, flat."""
        index = scratch.get("index", x.shape, torch.int32)
        if self._mesh.even:
            self._divide(x, index, scratch.get("u", x.shape))
        elif self._mesh.first is not None:
            index = self._compare(x, index, scratch)
        else:
            index.copy_(bisect(x, next(self._hinges), clamp=self._mesh.clamp))
        start = next(self._starts)
        if start.dim() == 3 and 1 < start.shape[0] != x.shape[0]:
            start = start[: x.shape[0]]
        index.add_(start)
        if self._offset is not None:
            index.add_(self._offset[..., : x.shape[2]])
        return index.view(-1)

    def _compare(self, x: Tensor, index: Tensor, scratch: Scratch) -> Tensor:
        """Finds cells, then on which side of the border in its cell each x lies."""
        u, found = scratch.get("u", x.shape), scratch.get("found", x.shape, torch.int32)
        self._divide(x, index, u)
        cell = index.add_(next(self._rows)).view(-1)
        torch.index_select(self._border, 0, cell, out=u.view(-1))
        torch.index_select(self._first, 0, cell, out=found.view(-1))
        return found.add_(torch.ge(x, u, out=index))

    def _divide(self, x: Tensor, index: Tensor, u: Tensor) -> None:
        """Writes how many steps x lies from the origin, kept inside the table."""
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
    finder = Finder(mesh, cut)
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
    finder = Finder(mesh, cut, sums)
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


def _bounds(slope: Tensor, cut: Cut) -> Iterator[tuple[Tensor, Tensor]] | None:
    """Returns, per block, the bounds that ``0 · ±inf`` needs; None: no end is flat.

    Looking costs nothing on a CPU; elsewhere it would wait for the device.
    """
    ends = slope[:, :: max(1, slope.shape[1] - 1)]
    if slope.device.type == "cpu" and bool(ends.all()):
        return None
    low, high = finite_bounds(slope)
    return zip(cut.rows(low), cut.rows(high), strict=False)
