"""The segments of a piecewise linear function: where they lie, what they hold.

H hinges make H − 1 segments; with ``clamp`` there is one more, constant, on
either side. On segment m the function is ``slope[m]·x + intercept[m]``. That
form, and not ``a[m] + slope[m]·(x − hinge[m])``, makes ReLU exact to the last
bit: on both sides of 0 its intercept is exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from vgaudit.errors import BadConfig

_MOST_CELLS = 1 << 14
"""Cells of an uneven mesh at most: their tables must stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Where the segments lie; G is 1 (one mesh for all channels) or the channels.

    A division finds the segment of x on an even mesh, and on an uneven one a cell
    so narrow that it holds one hinge at most; a comparison with that hinge then
    decides between two segments.

    Attributes:
        hinges: ``[G, H]``, increasing.
        gaps: ``[G, H − 1]``, widths of the segments.
        step: ``[G, 1]``, the width of a segment or cell.
        origin: ``[G, 1]``, from where steps are counted: a hinge, best 0.
        starts: ``[C, 1]`` int32, where the segment that begins at the origin lies
            in the flat table of all C channels.
        first: ``[G, N]`` int32, the segment at the left edge of each cell, as
            ``segment`` counts; None on an even mesh, or if cells were too many.
        border: ``[G, N]``, the hinge in each cell, or infinity.
        shift: index of the segment that begins at the origin.
        even: the hinges are equally far from each other.
        centred: ``origin`` is exactly 0 everywhere, so subtracting it is skipped.
        clamp: constant outside the hinges; else the end segments go on.
    """

    hinges: Tensor
    gaps: Tensor
    step: Tensor
    origin: Tensor
    starts: Tensor
    first: Tensor | None
    border: Tensor | None
    shift: int
    even: bool
    centred: bool
    clamp: bool

    @property
    def segments(self) -> int:
        """Number of segments, the constant ones outside included."""
        return self.gaps.shape[1] + 2 * self.clamp

    def to(self, dtype: torch.dtype) -> Mesh:
        """Returns the mesh in the type in which indices are computed."""
        if self.hinges.dtype == dtype:
            return self
        return replace(
            self,
            hinges=self.hinges.to(dtype),
            gaps=self.gaps.to(dtype),
            step=self.step.to(dtype),
            origin=self.origin.to(dtype),
            border=None if self.border is None else self.border.to(dtype),
        )


def survey(hinges: Tensor, channels: int, *, clamp: bool) -> Mesh:
    """Returns the mesh of hinge positions ``[G, H]``.

    Args:
        hinges: increasing; G is 1 or ``channels``.
        channels: how many functions share the positions.
        clamp: constant outside the hinges.

    Raises:
        BadConfig: fewer than two hinges, not increasing, or not finite.
    """
    if hinges.dim() != 2 or hinges.shape[1] < 2:
        raise BadConfig(
            f"hinges have shape {tuple(hinges.shape)}",
            hint="give at least two positions, [H] or [channels, H]",
        )
    gaps = hinges[:, 1:] - hinges[:, :-1]
    if not (torch.isfinite(hinges).all() and (gaps > 0).all()):
        raise BadConfig(
            "hinge positions are not finite and strictly increasing",
            hint="sort them and remove duplicates",
        )
    lead = _origin(hinges)
    step = (hinges[:, -1:] - hinges[:, :1]) / gaps.shape[1]
    even = _even(hinges, lead, step)
    origin, shift, cells = hinges[:, lead : lead + 1], lead + clamp, None
    if not even:
        origin, shift, step = hinges[:, :1], 0, gaps.amin(1, keepdim=True) / 2
        cells = _cells(hinges if clamp else hinges[:, 1:-1], origin, step)
    rows = torch.arange(channels, dtype=torch.int32, device=hinges.device)
    return Mesh(
        hinges=hinges,
        gaps=gaps,
        step=step.clone(),
        origin=origin.clone(),
        starts=(rows * (gaps.shape[1] + 2 * clamp) + shift).unsqueeze(1),
        first=None if cells is None else cells[0],
        border=None if cells is None else cells[1],
        shift=shift,
        even=even,
        centred=not bool(origin.any()),
        clamp=clamp,
    )


def _even(hinges: Tensor, lead: int, step: Tensor) -> bool:
    """Tells whether the hinges are equally far from each other, to rounding."""
    steps = torch.arange(hinges.shape[1], dtype=hinges.dtype, device=hinges.device)
    wanted = hinges[:, lead : lead + 1] + (steps - lead) * step
    rounding = 4 * torch.finfo(hinges.dtype).eps * hinges.abs().amax(1, keepdim=True)
    return bool(((wanted - hinges).abs() <= rounding).all())


def _cells(
    borders: Tensor, origin: Tensor, step: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Returns, per cell, the segment at its left edge and the border in it.

    None if there would be too many, or rounding put two borders into one.
    """
    cell = ((borders - origin) / step).floor()
    count = cell.amax() + 1
    if float(count) * len(borders) > _MOST_CELLS:
        return None
    cell, size = cell.long(), (len(borders), int(count))
    held = torch.zeros(size, dtype=torch.int32, device=borders.device)
    held.scatter_add_(1, cell, torch.ones_like(cell, dtype=torch.int32))
    if bool((held > 1).any()):
        return None
    border = borders.new_full(size, torch.inf).scatter_(1, cell, borders)
    return held.cumsum(1, dtype=torch.int32) - held, border


def _origin(hinges: Tensor) -> int:
    """Returns the hinge that is 0 in most channels, else the middle one.

    Counted from 0, the sign of a tiny x decides its segment exactly; counted
    from elsewhere, ``x − origin`` would round it away.
    """
    zeros = (hinges == 0).sum(0)
    return int(zeros.argmax()) if bool(zeros.any()) else (hinges.shape[1] - 1) // 2


def slopes(values: Tensor, mesh: Mesh) -> Tensor:
    """Returns the slopes ``[C, S]`` from the values at the hinges ``[C, H]``."""
    slope = (values[:, 1:] - values[:, :-1]) / mesh.gaps
    return pad(slope, (1, 1)) if mesh.clamp else slope


def tables(values: Tensor, mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Returns slope and intercept ``[C, S]`` from the values at the hinges."""
    slope = slopes(values, mesh)
    inner = slope[:, 1:-1] if mesh.clamp else slope
    intercept = values[:, :-1] - inner * mesh.hinges[:, :-1]
    if mesh.clamp:
        intercept = torch.cat((values[:, :1], intercept, values[:, -1:]), 1)
    return slope, intercept


def values_gradient(d_slope: Tensor, d_intercept: Tensor, mesh: Mesh) -> Tensor:
    """Returns dLoss/dvalues ``[C, H]``: the transpose of ``tables``.

    Args:
        d_slope: sum over a segment of dLoss/dy · x, ``[C, S]``.
        d_intercept: sum over a segment of dLoss/dy, ``[C, S]``.
        mesh: the segments.
    """
    level, tilt = d_intercept, d_slope
    if mesh.clamp:
        level, tilt = level[:, 1:-1], tilt[:, 1:-1]
    tilt = (tilt - mesh.hinges[:, :-1] * level) / mesh.gaps
    grad = pad(level - tilt, (0, 1)) + pad(tilt, (1, 0))
    if mesh.clamp:
        ends = d_intercept[:, :1], torch.zeros_like(grad[:, 2:]), d_intercept[:, -1:]
        grad = grad + torch.cat(ends, 1)
    return grad


def segment(x: Tensor, mesh: Mesh) -> Tensor:
    """Returns the segment of every x ``[outer, C, inner]``, int64; 0 for NaN.

    A hinge belongs to the segment on its right. On an even mesh an x within
    rounding of a hinge other than the origin may count for either side.
    """
    if not mesh.even:
        return bisect(x, mesh.hinges, clamp=mesh.clamp).long()
    u = x if mesh.centred else x - mesh.origin
    low, high = -mesh.shift, mesh.segments - 1 - mesh.shift
    u = (u / mesh.step).floor().clamp(low, high)
    return torch.where(u == u, u, low).long() + mesh.shift


def bisect(x: Tensor, hinges: Tensor, *, clamp: bool) -> Tensor:
    """Returns the segment of every x by bisection, int32; in range for NaN too.

    Args:
        x: ``[outer, C, inner]``.
        hinges: ``[1 or C, H]``.
        clamp: there is a segment on either side of the hinges.
    """
    borders = hinges if clamp else hinges[:, 1:-1]
    if borders.shape[0] == 1:
        return torch.bucketize(x, borders[0].contiguous(), right=True, out_int32=True)
    outer, channels, inner = x.shape
    rows = x.transpose(0, 1).reshape(channels, -1).contiguous()
    found = torch.searchsorted(borders.contiguous(), rows, right=True, out_int32=True)
    return found.view(channels, outer, inner).transpose(0, 1)


def finite_bounds(slope: Tensor) -> tuple[Tensor, Tensor]:
    """Returns bounds ``[C, 1]`` on x that keep ``0 · ±inf`` from becoming NaN.

    An end segment of slope 0 is constant, at ±inf too; any other slope lets
    infinity through.
    """
    largest = torch.finfo(slope.dtype).max
    first, last = slope[:, :1], slope[:, -1:]
    low = torch.full_like(first, -torch.inf).masked_fill_(first == 0, -largest)
    return low, torch.full_like(last, torch.inf).masked_fill_(last == 0, largest)
