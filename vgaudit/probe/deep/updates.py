"""The first step of SGD and of Adam: how large it is, and whether it arrives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vgaudit.flow import UpdateFlow
from vgaudit.probe import norms

LEARNING_RATES = {"sgd": 1e-2, "adam": 1e-3}
"""For which the steps are stated; SGD's scales with it, so any other is a factor."""

EPSILON = 1e-8
"""Adam's ε as torch has it."""


def first_steps(weight: Tensor, gradient: Tensor) -> tuple[UpdateFlow, ...]:
    """Returns the first step of each optimizer on one parameter.

    Args:
        weight: its values.
        gradient: of one batch.
    """
    with torch.no_grad():
        weight, gradient = weight.detach().double(), gradient.detach().double()
        return (
            _flow("sgd", weight, gradient * LEARNING_RATES["sgd"], 0.0),
            _flow("adam", weight, adam_step(gradient), _floor(gradient)),
        )


def adam_step(gradient: Tensor) -> Tensor:
    """Returns Adam's first step: with its bias corrected, η·g / (|g| + ε)."""
    return LEARNING_RATES["adam"] * gradient / (gradient.abs() + EPSILON)


def _floor(gradient: Tensor) -> float:
    size = gradient.abs()
    on = (size > 0) & (size <= EPSILON)
    return float(on.double().mean()) if size.numel() else 0.0


def swallowed(weight: Tensor, step: Tensor) -> float:
    """Returns the share of steps ≠ 0 that leave a bfloat16 weight as it was.

    The weight is rounded to bfloat16, the step taken in float32, the result rounded
    again: what an optimizer without a float32 copy of the weights does.
    """
    stored = weight.to(torch.bfloat16)
    moved = (stored.float() - step.float()).to(torch.bfloat16)
    wanted = step != 0
    count = int(wanted.sum())
    return int(((moved == stored) & wanted).sum()) / count if count else 0.0


def _flow(name: str, weight: Tensor, step: Tensor, floor: float) -> UpdateFlow:
    size, length = norms.read([norms.norm(weight), norms.norm(step)])
    return UpdateFlow(
        optimizer=name,
        learning_rate=LEARNING_RATES[name],
        ratio=length / size if size and math.isfinite(length) else None,
        swallowed=swallowed(weight, step),
        floor=floor,
    )
