"""Labels for data that has none, made up to fit an output and a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgaudit.data.seeding import generator_for


@dataclass(frozen=True, slots=True)
class RandomLabels:
    """Stands for the labels of a batch until a loss sees the output.

    Attributes:
        seed: of the data. index: number of the batch.
    """

    seed: int
    index: int

    def fitting(self, output: Tensor, loss: str) -> Any:
        """Returns random labels of the form that ``loss`` compares with ``output``.

        Classes for cross-entropy, nll and ctc; a fair coin for binary losses;
        standard normal values for mse and l1. The same batch gives the same.
        """
        generator = generator_for(self.seed, "labels", self.index)
        if loss in ("cross-entropy", "nll"):
            dim = class_dim(output)
            shape = [extent for d, extent in enumerate(output.shape) if d != dim]
            high = output.shape[dim]
            labels = torch.randint(high, shape, generator=generator)
        elif loss == "ctc":
            labels = _transcript(output, generator)
        elif loss in ("bce", "bce-with-logits"):
            labels = (torch.rand(output.shape, generator=generator) < 0.5).float()
        else:
            labels = torch.randn(output.shape, generator=generator)
        return labels.to(output.device)


def class_dim(output: Tensor) -> int:
    """Returns which dimension holds the classes, without labels to compare.

    ``[N, C]`` and ``[N, C, H, W]``: the second; ``[N, L, C]``, as of language
    models: the last.
    """
    return output.dim() - 1 if output.dim() in (1, 3) else 1


def _transcript(output: Tensor, generator: torch.Generator) -> Tensor:
    """Returns ``[N, T // 4]`` symbols, none of them the blank, for ``[T, N, C]``."""
    frames, samples, symbols = output.shape
    length = max(frames // 4, 1)
    if symbols < 2:
        return torch.ones((samples, length), dtype=torch.int64)
    return torch.randint(1, symbols, (samples, length), generator=generator)
