"""Schedules of the learning rate, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vgaudit.optim import warmup_linear_decay
from vgaudit.retraining import Schedule

DROPS = (0.5, 0.75)
"""Where ``step`` divides the rate by ten, as shares of the training."""

LINEAR = ("auto", "warmup-linear")
WARM = (*LINEAR, "cosine")
"""Schedules that warm up."""


@dataclass
class Cosine:
    """Linear warm-up, then half a cosine down to 0.

    Attributes:
        warmup_steps: the factor is (step + 1) / warmup_steps before this step.
        total_steps: the factor reaches 0 here.
    """

    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Returns the factor at ``step``, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


@dataclass
class Drops:
    """A tenth of the rate at half of the training, and again at three quarters."""

    total_steps: int

    def __call__(self, step: int) -> float:
        """Returns the factor at ``step``, counted from 0."""
        return 0.1 ** sum(step >= share * self.total_steps for share in DROPS)


@dataclass
class Constant:
    """The rate as it was given."""

    def __call__(self, step: int) -> float:
        """Returns 1."""
        return 1.0


def schedule(
    name: Schedule, optimizer: Optimizer, total_steps: int, *, warmup: float
) -> LambdaLR:
    """Returns the scheduler of an optimizer; call its ``step()`` after each step.

    Args:
        name: ``auto`` is ``warmup-linear``.
        optimizer: as built, with its own rates.
        total_steps: of the whole training.
        warmup: share of the steps, for the schedules that warm up.
    """
    if name in LINEAR:
        return warmup_linear_decay(optimizer, total_steps, warmup=warmup)
    factors: dict[str, Callable[[int], float]] = {
        "cosine": Cosine(
            min(round(warmup * total_steps), total_steps - 1), total_steps
        ),
        "step": Drops(total_steps),
        "constant": Constant(),
    }
    return LambdaLR(optimizer, factors[name])
