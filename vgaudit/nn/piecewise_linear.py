"""The adaptive activation of AdAct: a trainable piecewise linear function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.nn.activations import Start
from vgaudit.nn.grid import Grid, Outside, Shape, sample, shape_of
from vgaudit.nn.mesh import Mesh, segment, slopes, survey, tables
from vgaudit.nn.piecewise_function import Layout, compute_dtype, piecewise_linear


class PiecewiseLinear(nn.Module):
    """A piecewise linear activation with trainable values at fixed hinges.

    Between hinges m and m + 1 it is a straight line through their values; a
    hinge belongs to the segment on its right. Continuous everywhere,
    differentiable everywhere but at the hinges.

    Args:
        num_channels: C, one function per channel; None for one per layer.
        start: the shape at the beginning. ``preserve`` samples ``base``: exact
            if that is piecewise linear with its kinks on hinges, else off by up
            to h²/8·max|base″| between them. ``unit-slope`` is base shifted and
            scaled to pass 0 with slope 1. ``relu``, ``leaky`` (slope 0.1) and
            ``tanh`` are sampled. ``residual`` is base(x) + PL(x) with PL = 0: it
            preserves any base exactly.
        base: the activation to start from, for ``preserve``, ``unit-slope`` and
            ``residual``.
        grid: the hinges; 9 from −4 to 4 by default.
        channel_dim: the dimension of the input with C entries.

    Shape:
        Any floating point tensor, with C entries in ``channel_dim``; the result
        has its shape, type and memory format.

    Attributes:
        values: the function at the hinges, ``[C, H]``; the paper's a.
        hinges: their positions, ``[1 or C, H]``, float32 at least.

    Weight decay on ``values`` pulls towards 0 and not towards the start: leave
    them out of it.

    Raises:
        BadConfig: an argument that does not fit.

    Source: AdAct, arXiv 2308.05724. Linear continuation, starts other than
    ``preserve``, and insertion are not in the paper.
    """

    values: nn.Parameter
    hinges: Tensor
    gaps: Tensor
    step: Tensor
    origin: Tensor
    starts: Tensor
    first: Tensor | None
    border: Tensor | None

    def __init__(
        self,
        num_channels: int | None = None,
        *,
        start: Start = "relu",
        base: Shape | None = None,
        grid: Grid | None = None,
        channel_dim: int = 1,
    ) -> None:
        super().__init__()
        grid = grid or Grid.uniform()
        channels = 1 if num_channels is None else num_channels
        if channels < 1 or grid.positions.shape[0] not in (1, channels):
            raise BadConfig(
                f"{grid.positions.shape[0]} rows of hinges for {channels} channels",
                hint="give one row for all channels, or one for each",
            )
        shape = shape_of(start, base)
        self.num_channels = num_channels
        self.channel_dim = channel_dim
        self.outside: Outside = grid.outside
        self.register_buffer("hinges", grid.positions.clone())
        self._survey(channels)
        self.values = nn.Parameter(sample(shape, self.hinges, channels))
        self.base = _out_of_place(base) if start == "residual" else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the function of every element of ``x``.

        Raises:
            CannotRun: ``x`` is not floating point or has other channels.
        """
        self._check(x)
        dim = None if self.num_channels is None else self.channel_dim
        y = piecewise_linear(x, self.values, self.mesh, channel_dim=dim)
        return y if self.base is None else self.base(x) + y

    @property
    def mesh(self) -> Mesh:
        """The segments between the hinges."""
        return Mesh(
            hinges=self.hinges,
            gaps=self.gaps,
            step=self.step,
            origin=self.origin,
            starts=self.starts,
            first=self.first,
            border=self.border,
            shift=self._shift,
            even=self._even,
            centred=self._centred,
            clamp=self.outside == "clamp",
        )

    @torch.no_grad()
    def slopes(self) -> Tensor:
        """Returns the slope of every segment between hinges, ``[C, H − 1]``."""
        inner = slopes(self.values, self.mesh)
        return inner[:, 1:-1] if self.outside == "clamp" else inner

    @torch.no_grad()
    def hinge_hits(self, x: Tensor) -> Tensor:
        """Returns how many elements of ``x`` lie beside each hinge, ``[C, H]``.

        Only these train its value: a hinge without any gets no gradient.
        """
        self._check(x)
        dim = None if self.num_channels is None else self.channel_dim
        flat = Layout(x, dim).flatten(x).to(compute_dtype(x, self.values))
        mesh = self.mesh.to(flat.dtype)
        place = segment(flat, mesh) - mesh.shift + mesh.starts
        size = self.values.shape[0], mesh.segments
        counted = torch.bincount(place[~flat.isnan()], minlength=size[0] * size[1])
        hits = counted.view(size)
        if self.outside == "clamp":
            return hits[:, :-1] + hits[:, 1:]
        return nn.functional.pad(hits, (0, 1)) + nn.functional.pad(hits, (1, 0))

    @torch.no_grad()
    def insert_(self, positions: Tensor) -> PiecewiseLinear:
        """Adds hinges on the graph of the function, which does not change.

        ``values`` becomes a new, longer Parameter: make the optimizer anew.

        Args:
            positions: ``[n]`` for all channels, or ``[G, n]`` for G rows of hinges;
                between the first and the last hinge, not on another.

        Raises:
            BadConfig: a position that is taken or outside.
        """
        rows = self.hinges.shape[0]
        new = (
            positions.to(self.hinges).reshape(-1, positions.shape[-1]).expand(rows, -1)
        )
        inside = (new > self.hinges[:, :1]) & (new < self.hinges[:, -1:])
        hinges, order = torch.cat((self.hinges, new), 1).sort(1)
        if not bool(inside.all()) or bool((hinges.diff(dim=1) <= 0).any()):
            raise BadConfig(
                "new hinges must lie between the ends and on no other hinge",
                hint=f"the ends are {self.hinges[0, 0]:g} and {self.hinges[0, -1]:g}",
            )
        channels = self.values.shape[0]
        slope, intercept = tables(self.values, self.mesh)
        place = segment(new.unsqueeze(0), self.mesh)[0].expand(channels, -1)
        at_new = slope.gather(1, place) * new + intercept.gather(1, place)
        values = torch.cat((self.values, at_new.to(self.values.dtype)), 1)
        values = values.gather(1, order.expand(channels, -1))
        self.values = nn.Parameter(values, requires_grad=self.values.requires_grad)
        self.hinges = hinges
        self._survey(self.values.shape[0])
        return self

    def refine_(self) -> PiecewiseLinear:
        """Inserts a hinge in the middle of every segment: H becomes 2·H − 1."""
        return self.insert_(self.hinges[:, :-1] + self.gaps / 2)

    def extra_repr(self) -> str:
        """Returns channels, hinges and what holds outside them."""
        low, high = self.hinges[0, 0].item(), self.hinges[0, -1].item()
        place = f"{self.hinges.shape[1]} hinges in [{low:g}, {high:g}]"
        return f"num_channels={self.num_channels}, {place}, outside={self.outside}"

    def _check(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise CannotRun(
                f"PiecewiseLinear on {x.dtype}", hint="convert the input to float"
            )
        dim, wanted = self.channel_dim, self.num_channels
        if wanted is None:
            return
        if not -x.dim() <= dim < x.dim() or x.shape[dim] != wanted:
            raise CannotRun(
                f"PiecewiseLinear({wanted}) on shape {tuple(x.shape)}",
                hint=f"dimension {dim} must have {wanted} entries; see channel_dim",
            )

    def _survey(self, channels: int) -> None:
        """Derives from the hinges what finding a segment needs."""
        mesh = survey(self.hinges, channels, clamp=self.outside == "clamp")
        self._shift, self._even, self._centred = mesh.shift, mesh.even, mesh.centred
        for name in ("gaps", "step", "origin", "starts", "first", "border"):
            self.register_buffer(name, getattr(mesh, name), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PiecewiseLinear:
        """Moves and casts as usual, but keeps positions in float32 at least."""
        before = self.hinges
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.hinges.dtype == before.dtype or self.hinges.is_meta:
            return self
        if torch.finfo(self.hinges.dtype).bits < 32:
            self.hinges = before.to(self.hinges.device, torch.float32)
        self._survey(self.values.shape[0])
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.hinges.is_meta:
            self._survey(self.values.shape[0])


def _out_of_place(base: Shape | None) -> Shape | None:
    """Returns a copy of ``base`` that leaves its input alone, for base(x) + PL(x)."""
    if not isinstance(base, nn.Module):
        return base
    base = copy.deepcopy(base)
    for module in base.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010
    return base
