"""The autograd function behind ``PiecewiseLinear``; it saves its input alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vgaudit.nn.blocks import differentiate, evaluate
from vgaudit.nn.mesh import Mesh, segment, slopes, tables, values_gradient
from vgaudit.nn.sums import Sums


def piecewise_linear(
    x: Tensor, values: Tensor, mesh: Mesh, *, channel_dim: int | None
) -> Tensor:
    """Returns the piecewise linear function of every element of ``x``.

    Args:
        x: floating point, any shape; its type is the type of the result.
            Indices and values are computed in float32 or wider.
        values: the function at the hinges, ``[C, H]``.
        mesh: the segments, for C channels or for all.
        channel_dim: the dimension of ``x`` with C entries; None if C is 1 and
            one function serves every element.
    """
    if torch.compiler.is_compiling() or _traced_or_transformed():
        return _composite(x, values, mesh, channel_dim)
    result: Tensor = _PiecewiseLinear.apply(x, values, mesh, channel_dim)
    return result


def _traced_or_transformed() -> bool:
    """Tells whether torch.jit.trace or torch.func (vmap, grad, …) is at work.

    Both see plain operations only. Of torch.func no public call tells.
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", bool)
    return torch._C._get_tracing_state() is not None or bool(active())


def compute_dtype(x: Tensor, values: Tensor) -> torch.dtype:
    """Returns the type to compute in: the wider of both, at least float32."""
    both = torch.promote_types(x.dtype, values.dtype)
    return torch.promote_types(both, torch.float32)


def _plain_only(grad: Tensor) -> bool:
    """Tells whether only plain operations work on ``grad``: traced, or batched."""
    batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", None)
    return _traced_or_transformed() or (batched is not None and bool(batched(grad)))


class Layout:
    """A view of a tensor as ``[outer, C, inner]``, without a copy where possible.

    Channels-last tensors keep their memory format.
    """

    def __init__(self, x: Tensor, channel_dim: int | None) -> None:
        dim = None if channel_dim is None else channel_dim % x.dim()
        self._moved = _channels_last(x, 1 if dim is None else dim)
        self._shape = x.shape
        if self._moved is not None:
            self._shape = x.movedim(self._moved, -1).shape
            dim = None if dim is None else x.dim() - 1
        if dim is None:
            self._flat = (x.numel(), 1, 1)
        else:
            outer, inner = self._shape[:dim], self._shape[dim + 1 :]
            self._flat = (outer.numel(), self._shape[dim], inner.numel())

    def flatten(self, x: Tensor) -> Tensor:
        """Returns ``x``, or a tensor of its shape, as ``[outer, C, inner]``."""
        x = x if self._moved is None else x.movedim(self._moved, -1)
        return x.contiguous().view(self._flat)

    def empty_like(self, x: Tensor) -> Tensor:
        """Returns a tensor like ``x`` whose ``flatten`` is a view."""
        if self._moved is None:
            return torch.empty_like(x, memory_format=torch.contiguous_format)
        return torch.empty_like(x)

    def restore(self, flat: Tensor) -> Tensor:
        """Returns ``[outer, C, inner]`` in the shape and memory format of x."""
        y = flat.view(self._shape)
        return y if self._moved is None else y.movedim(-1, self._moved)


def _channels_last(x: Tensor, dim: int) -> int | None:
    """Returns ``dim`` if ``x`` is contiguous with it last, and not as it is."""
    if x.dim() < 3 or x.is_contiguous() or not x.movedim(dim, -1).is_contiguous():
        return None
    return dim


class _PiecewiseLinear(torch.autograd.Function):
    """Forward and backward by blocks; the second derivative by plain operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, mesh: Mesh, channel_dim: int | None
    ) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.save_for_forward(x, values)
        ctx.mesh, ctx.channel_dim = mesh, channel_dim
        dtype = compute_dtype(x, values)
        mesh = mesh.to(dtype)
        slope, intercept = tables(values.to(dtype), mesh)
        layout = Layout(x, channel_dim)
        y = layout.empty_like(x)
        # Not a view of a result: what follows may change y in place.
        evaluate(layout.flatten(x), slope, intercept, mesh, out=layout.flatten(y))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        if torch.is_grad_enabled() or _plain_only(grads[0]):
            return *_backward_composite(x, values, grads[0], ctx), None, None
        return *_backward_by_blocks(x, values, grads[0], ctx), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, values = ctx.saved_tensors
        d_x, d_values = tangents[:2]
        result = torch.zeros_like(x)
        if d_x is not None:
            slope, _, _ = _look_up(x, values, ctx.mesh, ctx.channel_dim)
            result = result + (slope * d_x).to(x.dtype)
        if d_values is not None:
            result = result + _composite(x, d_values, ctx.mesh, ctx.channel_dim)
        return result


def _backward_by_blocks(
    x: Tensor, values: Tensor, grad: Tensor, ctx: Any
) -> tuple[Tensor, Tensor | None]:
    """Returns dLoss/dx and dLoss/dvalues; nothing of it can be differentiated."""
    dtype = compute_dtype(x, values)
    mesh = ctx.mesh.to(dtype)
    slope = slopes(values.to(dtype), mesh)
    layout = Layout(x, ctx.channel_dim)
    flat = layout.flatten(x)
    sums = Sums(flat, mesh) if ctx.needs_input_grad[1] else None
    d_x = differentiate(flat, layout.flatten(grad), slope, mesh, sums=sums)
    if sums is None:
        return layout.restore(d_x), None
    d_values = values_gradient(*sums.totals(), mesh)
    return layout.restore(d_x), d_values.to(values.dtype)


def _backward_composite(
    x: Tensor, values: Tensor, grad: Tensor, ctx: Any
) -> tuple[Tensor, Tensor]:
    """Returns dLoss/dx and dLoss/dvalues, differentiable in x, values and grad."""
    slope, _, index = _look_up(x, values, ctx.mesh, ctx.channel_dim)
    mesh = ctx.mesh.to(slope.dtype)
    wide = grad.to(slope.dtype)
    rows = values.shape[0], mesh.segments
    empty = wide.new_zeros(rows[0] * rows[1])
    level = empty.index_add(0, index.reshape(-1), wide.reshape(-1))
    tilt = empty.index_add(0, index.reshape(-1), (wide * x).reshape(-1))
    d_values = values_gradient(tilt.view(rows), level.view(rows), mesh)
    return (wide * slope).to(x.dtype), d_values.to(values.dtype)


def _composite(
    x: Tensor, values: Tensor, mesh: Mesh, channel_dim: int | None
) -> Tensor:
    """Returns the function by plain operations, which compilers fuse."""
    slope, intercept, _ = _look_up(x, values, mesh, channel_dim)
    finite = torch.where(x.isinf() & (slope == 0), 0, x)
    return (slope * finite + intercept).to(x.dtype)


def _look_up(
    x: Tensor, values: Tensor, mesh: Mesh, channel_dim: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns slope, intercept and place in the flat table of every x."""
    dtype = compute_dtype(x, values)
    mesh = mesh.to(dtype)
    slope, intercept = tables(values.to(dtype), mesh)
    if channel_dim is None:
        flat = x.reshape(-1, 1, 1)
    else:
        dim = channel_dim % x.dim()
        flat = x.flatten(dim + 1) if dim + 1 < x.dim() else x.unsqueeze(-1)
        flat = flat.flatten(0, dim - 1) if dim > 0 else flat.unsqueeze(0)
    place = segment(flat.detach().to(dtype), mesh) - mesh.shift
    index = place + mesh.starts
    index = index.view(x.shape)
    return slope.reshape(-1)[index], intercept.reshape(-1)[index], index
