"""Plain values that all ranks exchange, as bytes that nobody has to unpickle."""

from __future__ import annotations

import io
from typing import Any

import torch
import torch.distributed as dist


def packed(value: Any) -> torch.Tensor:
    """Returns plain values and tensors as a vector of bytes.

    Dicts, lists, tuples, numbers, texts, None and tensors, in any depth.
    """
    stream = io.BytesIO()
    torch.save(value, stream)
    return torch.frombuffer(bytearray(stream.getbuffer()), dtype=torch.uint8)


def unpacked(data: torch.Tensor) -> Any:
    """Returns what ``packed`` took; runs nothing, whatever the bytes say."""
    stream = io.BytesIO(data.numpy().tobytes())
    return torch.load(stream, map_location="cpu", weights_only=True)


def place() -> tuple[int, int]:
    """Returns the number of this process and how many have joined each other."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def exchanged(value: Any) -> list[Any]:
    """Returns every rank's value in order, on all ranks.

    Args:
        value: plain values and tensors in dicts, lists and tuples.
    """
    device = _channel()
    data = packed(value)
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    sizes[dist.get_rank()] = data.numel()
    dist.all_reduce(sizes)
    padded = torch.zeros(int(sizes.max()), dtype=torch.uint8, device=device)
    padded[: data.numel()] = data
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [
        unpacked(part[:size].cpu())
        for part, size in zip(parts, sizes.tolist(), strict=True)
    ]


def _channel() -> torch.device:
    """Returns where tensors must be, to be exchanged by the ranks' backend."""
    if "gloo" in str(dist.get_backend()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
