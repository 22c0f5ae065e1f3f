"""Collects observations of curvature and averages them into the state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from vgaudit.errors import CannotRun
from vgaudit.optim.averages import zeros
from vgaudit.optim.curvature import pull_back
from vgaudit.optim.gradients import state_dtype
from vgaudit.optim.layers import Layout
from vgaudit.optim.norms import norms
from vgaudit.optim.sharding import is_sharded


class Observer:
    """The squares of one step's observations, before they reach the state.

    Several observations before one step (gradient accumulation) and those of
    several processes are averaged as squares: averaging the vectors first would
    shrink the estimate with their number.
    """

    def __init__(self, process_group: dist.ProcessGroup | None = None) -> None:
        self._process_group = process_group
        self._squares: dict[int, Tensor] = {}
        self.draws = 0

    @property
    def rank(self) -> int:
        """This process's number, so that each draws signs of its own."""
        return dist.get_rank(self._process_group) if _distributed() else 0

    def add(
        self, layout: Layout, watched: Sequence[int], output: Tensor, cotangent: Tensor
    ) -> None:
        """Adds one observation ``(Jᵀ s)²`` for each watched parameter.

        Raises:
            CannotRun: the graph cannot be used, or the parameters are sharded.
        """
        params = [layout.param(index) for index in watched]
        if any(is_sharded(param) for param in params):
            raise CannotRun(
                "curvature cannot be observed on sharded parameters",
                hint="train with kappa=0, the default, under FSDP2",
            )
        found = pull_back(output, cotangent, params)
        for index, param, vector in zip(watched, params, found, strict=True):
            # A parameter that the output does not reach is counted with zeros, so
            # that every process sums the same tensors.
            vector = zeros(param) if vector is None else vector.to(state_dtype(param))
            before = self._squares.get(index)
            if before is None:
                self._squares[index] = vector.square()
            else:
                before.addcmul_(vector, vector)
        self.draws += 1

    def forget(self) -> None:
        """Drops what was observed since the last step."""
        self._squares, self.draws = {}, 0

    def fold(self, layout: Layout, decay: float) -> bool:
        """Averages what was observed since the last step into ``curvature``.

        Every process must have observed before the same steps. An observation with
        NaN or infinity is dropped whole.

        Returns:
            whether the state changed.
        """
        squares, draws = self._squares, self.draws
        self.forget()
        if not draws:
            return False
        draws = self._sum_over_processes(list(squares.values()), draws)
        if draws > 1:
            torch._foreach_div_(list(squares.values()), float(draws))
        if not all(map(math.isfinite, norms(list(squares.values())))):
            return False
        for index, square in squares.items():
            kept = layout.kept(index)
            if "curvature" not in kept:
                kept["curvature"] = zeros(layout.param(index))
            kept["curvature"].lerp_(square, 1.0 - decay)
            weight = kept.get("curvature_weight", 0.0)
            kept["curvature_weight"] = decay * weight + 1.0 - decay
        return True

    def _sum_over_processes(self, squares: list[Tensor], draws: int) -> int:
        """Sums ``squares`` in place over all processes; returns all their draws."""
        if not _distributed() or dist.get_world_size(self._process_group) == 1:
            return draws
        total = draws
        for device in {square.device for square in squares}:
            here = [square for square in squares if square.device == device]
            count = torch.tensor([float(draws)], device=device)
            joined = torch.cat([*(square.flatten().float() for square in here), count])
            dist.all_reduce(joined, group=self._process_group)
            sizes = [square.numel() for square in here]
            pieces = torch.split(joined[:-1], sizes)
            for square, piece in zip(here, pieces, strict=True):
                square.copy_(piece.view(square.shape))
            total = round(float(joined[-1]))
        return total


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
