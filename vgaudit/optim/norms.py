"""L2 norms that are right for every tensor: tiny, huge, half precision, sharded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vgaudit.optim.sharding import sum_over_shards

# Between these, squares of float32 neither underflow nor overflow in a way that
# shows: at 1e-12 even 1e10 elements below 1e-19 would add less than 1e-4.
_SMALL, _LARGE = 1e-12, 1e15

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def norms(tensors: Sequence[Tensor], spread: Sequence[Tensor] = ()) -> list[float]:
    """Returns the L2 norm of each whole tensor, as numbers on the host.

    One multi-tensor kernel and one wait for each device; norms that float32
    cannot hold are taken again in float64. Non-finite elements give a non-finite
    norm.

    Args:
        tensors: local parts, of any floating-point type.
        spread: the parameter that each belongs to, so that the shards of one are
            summed; empty where no parameter is sharded.
    """
    values = _local_norms(tensors)
    if not spread:
        return values
    squares = [
        torch.tensor([value * value], dtype=torch.float64, device=tensor.device)
        for value, tensor in zip(values, tensors, strict=True)
    ]
    return [float(s) ** 0.5 for s in sum_over_shards(squares, spread)]


def _local_norms(tensors: Sequence[Tensor]) -> list[float]:
    values = [0.0] * len(tensors)
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(index)
    for (_, dtype), indices in kinds.items():
        found = torch._foreach_norm(
            [tensors[i] for i in indices], 2, _WIDE.get(dtype, dtype)
        )
        for index, value in zip(indices, torch.stack(found).tolist(), strict=True):
            values[index] = value
            if dtype is not torch.float64 and not _SMALL < value < _LARGE:
                values[index] = _exact(tensors[index])
    return values


def _exact(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def inner_products(
    left: Sequence[Tensor], right: Sequence[Tensor], spread: Sequence[Tensor] = ()
) -> list[float]:
    """Returns ⟨left_i, right_i⟩ of the whole tensors, as numbers on the host."""
    parts = [
        torch.sum(a * b, dtype=torch.float64).view(1)
        for a, b in zip(left, right, strict=True)
    ]
    return [float(part) for part in sum_over_shards(parts, spread)]
