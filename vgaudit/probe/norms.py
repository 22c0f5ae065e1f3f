"""L2 norms that stay true where float32 squares underflow or overflow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
# Squares may be taken of values whose mean is at most so many deviations away.
NEAR = 4.0


def norm(tensor: Tensor, *, near: Tensor | float = 1.0) -> Tensor | float:
    """Returns the L2 norm, exact to float32 rounding at any magnitude.

    On the CPU a float: in float32 where that is safe, else scaled or in float64.
    Elsewhere a 0-d float64 tensor, so that the device is not waited for.

    Args:
        tensor: any tensor.
        near: a norm of which this may be of the order: saves time where both are
            tiny, and changes nothing else.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return norm_of_values(tensor, near)


def norm_of_values(values: Tensor, near: Tensor | float) -> Tensor | float:
    """Returns ``norm`` of a dense tensor that needs no gradient.

    A hook runs this with cold caches, where each call of a function costs about as much
    as a dot product: so the usual case is written out.
    """
    if values.dtype is torch.float32 and values.is_cpu:
        line = values.view(-1) if values.is_contiguous() else flat(values)
        if near.__class__ is float and near > _SAFE_LOW and line.numel() <= _BLOCK:
            fast = math.sqrt(torch.dot(line, line).item())
            if _SAFE_LOW < fast < _SAFE_HIGH:
                return fast
        return _norm_float32(line, near)
    if not values.is_cpu:
        wide = torch.complex128 if values.is_complex() else torch.float64
        far: Tensor = torch.linalg.vector_norm(values, dtype=wide)
        return far.abs()
    return _norm_float64(values)


def _norm_float32(values: Tensor, near: Tensor | float) -> float:
    tiny = isinstance(near, float) and 0 < near <= _SAFE_LOW
    if tiny:
        lifted = _norm_lifted(values)
        if lifted <= _SAFE_LOW:
            return lifted
    fast = math.sqrt(squares_of(values))
    if _SAFE_LOW < fast < _SAFE_HIGH or math.isnan(fast):
        return fast
    return _norm_lifted(values) if fast <= _SAFE_LOW else _norm_scaled(values)


def _norm_lifted(values: Tensor) -> float:
    """Returns the norm where it is at most ``_SAFE_LOW``; more, or NaN, elsewhere.

    Block by block, so that what is lifted stays in the cache.
    """
    raised = (part * _LIFT for part in _blocks(values))
    return math.sqrt(math.fsum(torch.dot(part, part).item() for part in raised)) / _LIFT


def _norm_scaled(values: Tensor) -> float:
    low, high = torch.aminmax(values)
    largest = max(-low.item(), high.item())
    if _SCALABLE < largest < 1 / _SCALABLE:
        return largest * math.sqrt(squares_of(values * (1 / largest)))
    return _norm_float64(values) if largest else 0.0


def sum_squares(tensor: Tensor) -> float:
    """Returns the sum of squares of a tensor on the CPU."""
    return squares_of(flat(tensor))


def squares_of(values: Tensor) -> float:
    """Returns the sum of squares of values in one dimension on the CPU.

    Accumulated in the tensor's own type within blocks, in float64 over them.
    """
    if values.numel() <= _BLOCK:
        return torch.dot(values, values).item()
    return math.fsum(torch.dot(part, part).item() for part in _blocks(values))


def mean_and_deviation(tensor: Tensor) -> tuple[float, float]:
    """Returns the mean and the standard deviation (of all, not n − 1) in float64.

    On the CPU block by block, so that what is widened stays in the cache. There the
    deviation is that from the mean, or, where the mean is within a few deviations of
    zero, Σx² − n·mean², which loses nothing in float64.
    """
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        wide = tensor.double()
        return float(wide.mean()), float(wide.std(correction=0))
    values, count = flat(tensor), tensor.numel()
    taken = [_sum_and_squares(part) for part in _wide_blocks(values)]
    mean = math.fsum(total for total, _ in taken) / count
    raised = count * mean * mean
    squares = math.fsum(square for _, square in taken) - raised
    if not squares * NEAR * NEAR > raised:
        squares = math.fsum(squares_of(part - mean) for part in _wide_blocks(values))
    return mean, math.sqrt(squares / count)


def _sum_and_squares(values: Tensor) -> tuple[float, float]:
    return values.sum().item(), torch.dot(values, values).item()


def _wide_blocks(values: Tensor) -> Iterator[Tensor]:
    """Yields the values in float64, block by block; each may take the last one's place.

    To widen a whole tensor takes ten times as long, and more memory than it has.
    """
    parts = _blocks(values)
    if values.dtype is torch.float64:
        yield from parts
        return
    room = torch.empty(len(parts[0]), dtype=torch.float64)
    for part in parts:
        yield room[: len(part)].copy_(part)


def _blocks(values: Tensor) -> Sequence[Tensor]:
    """Returns parts of nearly equal size, of at most ``_BLOCK`` values."""
    count = -(-values.numel() // _BLOCK)
    return values.tensor_split(count) if count > 1 else (values,)


def flat(tensor: Tensor) -> Tensor:
    """Returns all values in one dimension, without a copy where that is possible."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    return _in_memory_order(tensor).reshape(-1).contiguous()


def squares(tensor: Tensor) -> Tensor:
    """Returns the sum of squares as a 0-d float64 tensor, on the tensor's device."""
    size: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return size * size


def is_dense(tensor: Tensor) -> bool:
    """Tells whether the values fill their memory, each in a place of its own."""
    return tensor.is_contiguous() or _in_memory_order(tensor).is_contiguous()


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Returns a view whose elements lie one after another, where there is one."""
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda d: -strides[d]))


def _norm_float64(tensor: Tensor) -> float:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    # Not math.fsum, which fails where a sum of finite numbers is infinite.
    parts = _wide_blocks(flat(tensor))
    return math.sqrt(sum(torch.dot(part, part).item() for part in parts))


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
