"""The training patterns of the three-step algorithm, in blocks that fit memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vgaudit.errors import CannotRun


@dataclass(frozen=True, slots=True)
class Patterns:
    """Inputs ``[N, n]`` with targets ``[N, M]``.

    Every step of the algorithm is a sum over patterns, so the block size changes
    memory and nothing else.

    Attributes:
        inputs: any floating point type; computed in the network's.
        targets: likewise.
        block: patterns at a time.
    """

    inputs: Tensor
    targets: Tensor
    block: int = 8192

    def __post_init__(self) -> None:
        if self.inputs.dim() != 2 or self.targets.dim() != 2:
            raise CannotRun(
                f"inputs {tuple(self.inputs.shape)} and targets "
                f"{tuple(self.targets.shape)} for a network of one hidden layer",
                hint="give [N, features] and [N, outputs]",
            )
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            raise CannotRun(
                f"{len(self.inputs)} inputs and {len(self.targets)} targets",
                hint="give as many of both, and at least one",
            )
        if not bool(self.inputs.isfinite().all() & self.targets.isfinite().all()):
            raise CannotRun(
                "inputs or targets that are not finite",
                hint="least squares need every value: drop or impute those samples",
            )

    @classmethod
    def classes(cls, inputs: Tensor, labels: Tensor, count: int) -> Patterns:
        """Returns patterns with one-hot targets for ``labels``, ``[N]``."""
        return cls(inputs, one_hot(labels, count).to(inputs.dtype))

    def __len__(self) -> int:
        return len(self.inputs)

    def blocks(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields inputs and targets block by block, in the type of ``like``."""
        for first in range(0, len(self), self.block):
            rows = slice(first, first + self.block)
            yield self.inputs[rows].to(like), self.targets[rows].to(like)


def with_constant(x: Tensor) -> Tensor:
    """Returns ``[1, x]``: a column of ones in front."""
    return torch.cat((x.new_ones(len(x), 1), x), 1)
