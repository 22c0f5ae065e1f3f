"""The first step of SGD and of Adam: how large it is, and whether it arrives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.flow import UpdateFlow
from vgaudit.probe.deep.exponents import chunks

LEARNING_RATES = {"sgd": 1e-2, "adam": 1e-3}
"""For which the steps are stated; SGD's scales with it, so any other is a factor."""

EPSILON = 1e-8
"""Adam's ε as torch has it."""


def sgd_step(gradient: Tensor) -> Tensor:
    """Returns SGD's step: η·g."""
    return LEARNING_RATES["sgd"] * gradient


def adam_step(gradient: Tensor) -> Tensor:
    """Returns Adam's first step: with its bias corrected, η·g / (|g| + ε)."""
    return LEARNING_RATES["adam"] * gradient / (gradient.abs() + EPSILON)


_STEPS: dict[str, Callable[[Tensor], Tensor]] = {"sgd": sgd_step, "adam": adam_step}


@dataclass(slots=True)
class _Sums:
    """Counts over the pieces of one parameter."""

    step: float = 0.0
    moving: int = 0
    swallowed: int = 0


def first_steps(weight: Tensor, gradient: Tensor) -> tuple[UpdateFlow, ...]:
    """Returns the first step of each optimizer on one parameter.

    Args:
        weight: its values.
        gradient: of one batch.
    """
    found = {name: _Sums() for name in _STEPS}
    weights, on_floor = 0.0, 0
    with torch.no_grad():
        for w, g in zip(chunks(weight), chunks(gradient), strict=True):
            weights += _squares(w)
            size = g.abs()
            on_floor += int(((size <= EPSILON) & (size > 0)).sum())
            for name, take in _STEPS.items():
                _add(found[name], w, take(g))
    floor = on_floor / max(gradient.numel(), 1)
    return tuple(
        UpdateFlow(
            optimizer=name,
            learning_rate=LEARNING_RATES[name],
            ratio=_ratio(sums.step, weights),
            swallowed=sums.swallowed / sums.moving if sums.moving else 0.0,
            floor=floor if name == "adam" else 0.0,
        )
        for name, sums in found.items()
    )


def _add(sums: _Sums, weight: Tensor, step: Tensor) -> None:
    sums.step += _squares(step)
    moving = step != 0
    sums.moving += int(moving.sum())
    sums.swallowed += int((unmoved(weight, step) & moving).sum())


def unmoved(weight: Tensor, step: Tensor) -> Tensor:
    """Returns which weights a step leaves as they are when stored in bfloat16.

    The weight is rounded to bfloat16, the step taken in float32, the result rounded
    again: what an optimizer without a float32 copy of the weights does.
    """
    stored = weight.to(torch.bfloat16)
    return (stored.float() - step.float()).to(torch.bfloat16) == stored


def _squares(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _ratio(step: float, weight: float) -> float | None:
    known = weight > 0 and math.isfinite(step)
    return math.sqrt(step) / math.sqrt(weight) if known else None
