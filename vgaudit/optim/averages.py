"""The averages that SDAGD keeps for each parameter: gradient and curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vgaudit.optim.centring import mean_response
from vgaudit.optim.gradients import Gradients, state_dtype
from vgaudit.optim.layers import Layout
from vgaudit.optim.sharding import local
from vgaudit.optim.trust import SMALLEST


def update_momenta(layout: Layout, gradients: Gradients) -> None:
    """Averages each moving gradient into ``momentum``."""
    by_decay: dict[float, list[int]] = {}
    for index in gradients.members:
        kept = layout.kept(index)
        decay = float(layout.option(index, "momentum"))
        if "momentum" not in kept:
            kept["momentum"] = zeros(layout.param(index))
        kept["momentum_weight"] = decay * kept.get("momentum_weight", 0.0) + 1.0 - decay
        by_decay.setdefault(decay, []).append(index)
    for decay, indices in by_decay.items():
        torch._foreach_lerp_(
            [momentum(layout, index) for index in indices],
            [gradients.values[index] for index in indices],
            1.0 - decay,
        )


def zeros(param: Tensor) -> Tensor:
    """Returns zeros for an average over ``param``, sharded and laid out as it is."""
    return torch.zeros_like(param, dtype=state_dtype(param), requires_grad=False)


def momentum(layout: Layout, index: int) -> Tensor:
    """Returns the local part of the averaged gradient, not bias-corrected."""
    return local(layout.kept(index)["momentum"])


def correction(layout: Layout, index: int) -> float:
    """Returns what the averaged gradient is to be divided by: 1 − βᵗ."""
    return float(layout.kept(index)["momentum_weight"])


def curvature(layout: Layout, index: int) -> tuple[Tensor, float] | None:
    """Returns the averaged curvature and its factor κ / (1 − βⁿ), or None."""
    kept = layout.kept(index)
    kappa = float(layout.option(index, "kappa"))
    if kappa == 0.0 or "curvature" not in kept:
        return None
    return local(kept["curvature"]), kappa / kept["curvature_weight"]


def directions(
    layout: Layout, damping: Mapping[int, float], scratch: Mapping[int, Tensor]
) -> dict[int, tuple[Tensor, float]]:
    """Returns each step as (d, c), the step being −c·d: m̂ / (μ + κĥ).

    d is the momentum itself where there is no curvature, so that nothing is copied.

    Args:
        layout: the optimizer's parameters.
        damping: μ by parameter.
        scratch: tensors of the parameters' shapes that may be overwritten; fresh
            memory costs more than any operation on it.
    """
    found: dict[int, tuple[Tensor, float]] = {}
    for index, mu in damping.items():
        seen = curvature(layout, index)
        factor = 1.0 / correction(layout, index)
        if seen is None:
            found[index] = (momentum(layout, index), factor / mu)
            continue
        # μ as a tensor of no dimensions: one pass over memory instead of two.
        damp = torch.tensor(mu, dtype=seen[0].dtype)
        below = torch.add(damp, seen[0], alpha=seen[1], out=scratch.get(index))
        if mu < SMALLEST:
            below.clamp_min_(SMALLEST)
        found[index] = (torch.div(momentum(layout, index), below, out=below), factor)
    return found


def subtract(
    params: Sequence[Tensor], steps: Sequence[Tensor], factors: Sequence[float]
) -> None:
    """Subtracts factor · step from each parameter, in place."""
    if all(param.is_cpu for param in params):
        # One pass over memory each; the multi-tensor form below needs two.
        for param, step, factor in zip(params, steps, factors, strict=True):
            param.add_(step, alpha=-factor)
        return
    torch._foreach_sub_(list(params), torch._foreach_mul(list(steps), list(factors)))


def move(
    layout: Layout, gradients: Gradients, moves: dict[int, tuple[Tensor, float]]
) -> None:
    """Takes the steps −c·d, each given as (d, c), and corrects centred biases.

    A weight's centred step D shifts the mean of its layer's output by D ā; its
    bias takes that back.
    """
    subtract(
        [local(layout.param(index)) for index in moves],
        [direction for direction, _ in moves.values()],
        [factor for _, factor in moves.values()],
    )
    for weight, centre in gradients.centres.items():
        direction, factor = moves[weight]
        bias = local(layout.param(centre.bias))
        bias.add_(mean_response(direction, centre.mean), alpha=factor)
