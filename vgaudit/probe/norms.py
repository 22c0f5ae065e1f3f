"""L2 norms that stay true where float32 squares underflow or overflow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Squares of float32 values leave the normal range outside these norms.
_SAFE_LOW = 1e-15
_SAFE_HIGH = 1e15
# Torch's float32 sums of squares on the CPU drift with their length: 4e-4 of the
# norm at 10⁷ elements, 1e-2 at 10⁸. Blocks of this size stay below 1e-7.
_BLOCK = 1 << 13


def norm(tensor: Tensor) -> Tensor | float:
    """Returns the L2 norm, exact to float32 rounding at any magnitude.

    On the CPU a float: the fast float32 norm where it is safe, else float64.
    Elsewhere a 0-d float64 tensor, so that the device is not waited for.
    """
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.device.type != "cpu":
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        far: Tensor = torch.linalg.vector_norm(tensor.detach(), dtype=wide)
        return far.abs()
    if tensor.dtype == torch.float32:
        fast = _norm_float32(tensor.detach())
        if _SAFE_LOW < fast < _SAFE_HIGH or math.isnan(fast):
            return fast
    return _norm_float64(tensor.detach())


def _norm_float32(tensor: Tensor) -> float:
    if tensor.numel() <= _BLOCK:
        return float(torch.linalg.vector_norm(tensor))
    return math.sqrt(float(squares(tensor)))


def squares(tensor: Tensor) -> Tensor:
    """Returns the sum of squares as a 0-d float64 tensor.

    Accumulated in the tensor's own type within blocks, in float64 over them.
    """
    flat = _in_memory_order(tensor).reshape(-1)
    whole = flat.numel() - flat.numel() % _BLOCK
    if not whole:
        return torch.dot(flat, flat).double()
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _BLOCK), dim=1).double()
    rest = flat[whole:]
    return torch.dot(rows, rows) + torch.dot(rest, rest)


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Returns a view whose elements lie one after another, where there is one."""
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda d: -strides[d]))


def _norm_float64(tensor: Tensor) -> float:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return float(torch.linalg.vector_norm(tensor.double()))


def total(parts: list[Tensor | float]) -> Tensor | float:
    """Returns the norm of a tensor from the norms of its parts."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, float) for part in parts):
        return math.hypot(*(float(part) for part in parts))
    stacked = torch.stack(
        [torch.as_tensor(part, dtype=torch.float64) for part in parts]
    )
    joined: Tensor = torch.linalg.vector_norm(stacked)
    return joined


def read(values: list[Tensor | float]) -> list[float]:
    """Returns all values as floats, with one wait for the device."""
    waiting = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    numbers = [0.0 if isinstance(value, Tensor) else value for value in values]
    if waiting:
        stack = torch.stack([torch.as_tensor(values[i]) for i in waiting]).tolist()
        for i, number in zip(waiting, stack, strict=True):
            numbers[i] = number
    return numbers
