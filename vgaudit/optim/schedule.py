"""The learning-rate schedule that goes with a relative radius."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vgaudit.errors import BadConfig


@dataclass
class WarmupLinearDecay:
    """Factor of the learning rate at each step: up to 1, then down to 0.

    An object and not a lambda, so that ``LambdaLR.state_dict`` keeps it.

    Attributes:
        warmup_steps: the factor is (step + 1) / warmup_steps before this step.
        total_steps: the factor reaches 0 here and stays there.
    """

    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Returns the factor at ``step``, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return max(0.0, left)


def warmup_linear_decay(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05
) -> LambdaLR:
    """Returns a scheduler: linear warm-up, then linear decay to 0.

    Call its ``step()`` after every ``optimizer.step()``.

    Args:
        optimizer: any optimizer; each group keeps its own peak.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps that the warm-up takes.

    Raises:
        BadConfig: ``total_steps`` below 1, or ``warmup`` outside [0, 1).
    """
    if total_steps < 1:
        raise BadConfig(
            f"total_steps is {total_steps}", hint="give the number of steps, 1 or more"
        )
    if not 0.0 <= warmup < 1.0:
        raise BadConfig(f"warmup is {warmup}", hint="give a share from 0 to below 1")
    steps = min(round(warmup * total_steps), total_steps - 1)
    return LambdaLR(optimizer, WarmupLinearDecay(steps, total_steps))
