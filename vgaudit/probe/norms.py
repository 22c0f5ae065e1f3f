"""L2 norms that stay true where float32 squares underflow or overflow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Squares of float32 values leave the normal range outside these norms.
_SAFE_LOW = 1e-15
_SAFE_HIGH = 1e15
# Below this the factor that would bring a value to 1 is itself out of range.
_SCALABLE = 1e-30
# A power of two, so that it adds no rounding: norms up to _SAFE_LOW and the smallest
# subnormal number, 1.4e-45, both have squares within the normal range.
_LIFT = 2.0**100
# One float32 dot product drifts with its length: 1e-5 at 6·10⁶ elements, where
# blocks of this size stay below 1e-6 at no cost.
_BLOCK = 1 << 17


def norm(tensor: Tensor, *, near: Tensor | float = 1.0) -> Tensor | float:
    """Returns the L2 norm, exact to float32 rounding at any magnitude.

    On the CPU a float: in float32 where that is safe, else scaled or in float64.
    Elsewhere a 0-d float64 tensor, so that the device is not waited for.

    Args:
        tensor: any tensor.
        near: a norm of which this may be of the order: saves time where both are
            tiny, and changes nothing else.
    """
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.device.type != "cpu":
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        far: Tensor = torch.linalg.vector_norm(tensor, dtype=wide)
        return far.abs()
    if tensor.dtype == torch.float32:
        return _norm_float32(tensor, tiny=bool(0 < near <= _SAFE_LOW))
    return _norm_float64(tensor)


def _norm_float32(tensor: Tensor, *, tiny: bool) -> float:
    if tiny:
        lifted = _norm_lifted(tensor)
        if lifted <= _SAFE_LOW:
            return lifted
    fast = math.sqrt(sum_squares(tensor))
    if _SAFE_LOW < fast < _SAFE_HIGH or math.isnan(fast):
        return fast
    return _norm_lifted(tensor) if fast <= _SAFE_LOW else _norm_scaled(tensor)


def _norm_lifted(tensor: Tensor) -> float:
    """Returns the norm where it is at most ``_SAFE_LOW``; more, or NaN, elsewhere."""
    return math.sqrt(sum_squares(tensor * _LIFT)) / _LIFT


def _norm_scaled(tensor: Tensor) -> float:
    low, high = torch.aminmax(tensor)
    largest = max(-float(low), float(high))
    if _SCALABLE < largest < 1 / _SCALABLE:
        return largest * math.sqrt(sum_squares(tensor * (1 / largest)))
    return _norm_float64(tensor) if largest else 0.0


def sum_squares(tensor: Tensor) -> float:
    """Returns the sum of squares of a tensor on the CPU.

    Accumulated in the tensor's own type within blocks, in float64 over them.
    """
    flat = _in_memory_order(tensor).reshape(-1).contiguous()
    if flat.numel() <= _BLOCK:
        return float(torch.dot(flat, flat))
    return math.fsum(float(torch.dot(part, part)) for part in torch.split(flat, _BLOCK))


def squares(tensor: Tensor) -> Tensor:
    """Returns the sum of squares as a 0-d float64 tensor, on the tensor's device."""
    size: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return size * size


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
