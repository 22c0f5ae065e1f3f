"""Parameters that are spread over processes (FSDP2, tensor parallel).

Everything elementwise runs on the local shard. Only sums cross processes: squared
norms, and the products that centring needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Returns whether ``tensor`` is a DTensor."""
    # Asking for the class itself would import torch.distributed.tensor, which
    # costs half a second and does not exist in builds without distributed.
    return hasattr(tensor, "placements") and hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """Returns the part of ``tensor`` that this process holds, sharing its memory."""
    if not is_sharded(tensor):
        return tensor
    return cast(Tensor, cast(Any, tensor).to_local())


def rows_match(weight: Tensor, bias: Tensor) -> bool:
    """Returns whether each process holds the same rows of ``weight`` and ``bias``."""
    if not is_sharded(weight) and not is_sharded(bias):
        return True
    if not is_sharded(weight) or not is_sharded(bias):
        return False
    ours, theirs = cast(Any, weight), cast(Any, bias)
    by_rows = all(p.is_replicate() or p.is_shard(0) for p in ours.placements)
    same = ours.placements == theirs.placements
    return bool(by_rows and same and ours.device_mesh == theirs.device_mesh)


def sum_over_shards(parts: Sequence[Tensor], spread: Sequence[Tensor]) -> list[Tensor]:
    """Returns each part summed over the processes that share its parameter.

    One collective for each mesh and placement, however many parts there are. A
    part whose parameter is an ordinary tensor comes back as it is.

    Args:
        parts: one vector ``[n_i]`` for each parameter.
        spread: the parameters; empty where none is sharded.
    """
    result = list(parts)
    joined: dict[tuple[Any, Any], list[int]] = {}
    for index, param in enumerate(spread):
        if is_sharded(param):
            known = cast(Any, param)
            key = (known.device_mesh, tuple(known.placements))
            joined.setdefault(key, []).append(index)
    for (mesh, placements), indices in joined.items():
        whole = _all_sum(torch.cat([parts[i] for i in indices]), mesh, placements)
        sizes = [parts[i].numel() for i in indices]
        for index, piece in zip(indices, torch.split(whole, sizes), strict=True):
            result[index] = piece
    return result


def _all_sum(vector: Tensor, mesh: Any, placements: Sequence[Any]) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate

    sums = [Replicate() if p.is_replicate() else Partial() for p in placements]
    return DTensor.from_local(vector, mesh, sums, run_check=False).full_tensor()
