"""Full-batch RAI, step by step, on any model that can be cut.

The author's algorithm: one target for every training sample and cut, one optimizer
over targets and weights; with the gate of ``gate.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.training.rai.gate import Gate
from vgaudit.training.rai.relaxed import Relaxation, calibrate, frozen
from vgaudit.training.rai.rprop import Rprop


class FullBatch(Protocol):
    """A full-batch RAI run: the general one, or that of equal linear layers."""

    noise: float
    done: int

    def step(self) -> float:
        """Takes one step; returns the loss of the relaxed output before it."""

    def targets(self) -> list[Tensor]:
        """Returns the targets as they are, one for each cut."""

    def write(self) -> None:
        """Brings the weights into the model, if they are not there yet."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""


class Reference:
    """RAI on all samples at once.

    Attributes:
        noise: share of residuals that are not zero at the start, where all should
            be: rounding that differs between two equal passes.
        done: steps taken.

    Args:
        relaxation: of the model; its parameters are trained in place.
        batch: every training sample, in the same order as long as this lives.
        gate: when a stage moves.

    Raises:
        CannotRewrite: a cut does not part the model.
    """

    def __init__(self, relaxation: Relaxation, batch: Batch, gate: Gate) -> None:
        self._relaxation, self._batch, self._gate = relaxation, batch, gate
        calibrate(relaxation.model, batch)
        with frozen(relaxation.model):
            self._stages = _trainable(relaxation.stages(batch))
            self._targets = [z.requires_grad_() for z in relaxation.values(batch)]
            self.noise = self._noise()
        self._weights = list({id(p): p for s in self._stages for p in s}.values())
        self._rprop = Rprop([*self._targets, *self._weights], rate=gate.rate)
        self.done = 0

    def step(self) -> float:
        """Takes one step; returns the loss of the relaxed output before it."""
        with frozen(self._relaxation.model), torch.enable_grad():
            losses = self._relaxation.losses(self._batch, self._targets)
            moving = self._gate.moving(len(self), self.done)
            total = torch.stack(
                [[*losses.hidden, losses.output][t] for t in moving]
            ).sum()
            gradients = torch.autograd.grad(
                total, self._moving(moving), allow_unused=True
            )
        found = dict(zip(map(id, self._moving(moving)), gradients, strict=True))
        self._rprop.step([found.get(id(v)) for v in self._rprop.variables])
        self.done += 1
        return float(losses.output.detach())

    def targets(self) -> list[Tensor]:
        """Returns the targets as they are, one for each cut."""
        return [z.detach() for z in self._targets]

    def write(self) -> None:
        """Does nothing: the model's own parameters are trained."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step needs."""
        return {
            "targets": self.targets(),
            "rprop": self._rprop.state_dict(),
            "done": self.done,
            "noise": self.noise,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        for own, given in zip(self._targets, state["targets"], strict=True):
            own.copy_(given)
        self._rprop.load_state_dict(state["rprop"])
        self.done, self.noise = int(state["done"]), float(state["noise"])

    def __len__(self) -> int:
        return len(self._targets)

    def _moving(self, stages: range) -> list[Tensor]:
        """Returns the variables that move with those stages."""
        targets = self._targets[max(0, stages.start - 1) : max(0, stages.stop - 1)]
        weights = {id(p): p for t in stages for p in self._stages[t]}
        return [*targets, *weights.values()]

    @torch.no_grad()
    def _noise(self) -> float:
        values = self._relaxation.losses(self._batch, self._targets).values
        pairs = list(zip(values, self._targets, strict=True))
        wrong = sum(int((value != target).sum()) for value, target in pairs)
        return wrong / sum(target.numel() for _, target in pairs)


def _trainable(stages: Sequence[Sequence[Tensor]]) -> list[list[nn.Parameter]]:
    return [
        [p for p in stage if isinstance(p, nn.Parameter) and p.requires_grad]
        for stage in stages
    ]
