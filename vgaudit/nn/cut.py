"""Cuts large tensors into blocks that fit the cache, and keeps buffers for one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

_BLOCK = 1 << 18
"""Elements per block and thread: a megabyte of float32."""


class Cut:
    """How tensors ``[outer, channels, inner]`` are cut into blocks, all alike.

    A block holds whole samples where one fits, else channels of one sample, else
    a part of one channel: it is contiguous in memory. On a GPU, all is one block.

    Attributes:
        whole: blocks hold whole samples.
        count: how many samples, or channels of one sample, a block holds.
        width: how much of a channel it holds.
    """

    def __init__(self, x: Tensor) -> None:
        outer, channels, inner = x.shape
        size = _BLOCK * torch.get_num_threads() if x.device.type == "cpu" else x.numel()
        size = max(1, size)
        self.whole = channels * inner <= size
        self.width = min(inner, size)
        self.count = size // max(1, channels * inner if self.whole else self.width)
        self._outer, self._inner = outer, inner

    @property
    def single(self) -> bool:
        """All is one block."""
        return self.whole and self._outer <= self.count

    def of(self, x: Tensor) -> Sequence[Tensor]:
        """Returns the blocks of ``x``, in order."""
        if self.whole:
            return (x,) if self.single else torch.split(x, self.count)
        return [
            block
            for sample in torch.split(x, 1)
            for channels in torch.split(sample, self.count, 1)
            for block in torch.split(channels, self.width, 2)
        ]

    def rows(self, table: Tensor) -> Iterator[Tensor]:
        """Yields each block's rows of a table ``[…, 1 or channels, any]``, for ever."""
        if self.whole or table.shape[-2] == 1:
            return itertools.repeat(table)
        parts = -(-self._inner // self.width)
        rows = torch.split(table, self.count, -2)
        return itertools.cycle([row for row in rows for _ in range(parts)])


class Scratch:
    """Buffers by name and shape: two shapes at most, of full and of last blocks."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self._device = like.device
        self._dtype = dtype
        self._buffers: dict[tuple[str, torch.Size], Tensor] = {}

    def get(
        self, name: str, shape: torch.Size, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Returns the buffer, not filled."""
        buffer = self._buffers.get((name, shape))
        if buffer is None:
            buffer = torch.empty(shape, dtype=dtype or self._dtype, device=self._device)
            self._buffers[name, shape] = buffer
        return buffer

    def cast(self, x: Tensor, name: str) -> Tensor:
        """Returns ``x`` in the type of the computation."""
        if x.dtype == self._dtype:
            return x
        return self.get(name, x.shape).copy_(x)

    def store(
        self, out: Tensor, operation: Callable[..., Tensor], *args: Tensor
    ) -> None:
        """Writes ``operation(*args)`` to ``out``, through a buffer if types differ."""
        if out.dtype == self._dtype:
            operation(*args, out=out)
        else:
            out.copy_(operation(*args, out=self.get("stored", out.shape)))
