"""Weights that are exactly zero and stop every gradient below them.

Zero-initialised heads and residual branches are a design, not a death: their
own gradient is not zero, so the first step revives them. On the trunk such a
weight is replaced for the measurement, because nothing can be said about the
transport below a gradient that is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from vgaudit.flow import Blocker
from vgaudit.probe import operations
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.rows import owner
from vgaudit.probe.state import Twin
from vgaudit.probe.step import Measured


def find(blueprint: Blueprint, twin: Twin, measured: Measured) -> tuple[Blocker, ...]:
    """Returns the zero weights that multiply the data path."""
    cuts = set(blueprint.plan.cuts)
    found = []
    for node, names in sorted(blueprint.plan.parametric.items()):
        kind = blueprint.kinds[node]
        for name in names:
            if _multiplies(kind, name, twin) and twin.weights.norms[name] == 0:
                figures = measured.parameters.get(name)
                found.append(
                    Blocker(
                        name=name,
                        layer=owner(name),
                        learns=figures is not None and figures.norm > 0,
                        replaced=node in cuts and operations.is_weight(kind),
                    )
                )
    return tuple(found)


def _multiplies(kind: str, name: str, twin: Twin) -> bool:
    parameter = twin.parameters[name]
    if parameter.numel() == 0 or name.rpartition(".")[2].startswith("bias"):
        return False
    if operations.is_weight(kind):
        return parameter.dim() >= 2 and "bias" not in name.rpartition(".")[2]
    normalizes = operations.cause(kind, parametric=True) == "normalization"
    return normalizes or kind in ("Mul", "Addcmul")


def replace(twin: Twin, blockers: Sequence[Blocker], seed: int) -> None:
    """Gives the blocking weights on the trunk random values, in the clones only.

    They are drawn from N(0, 1/fan_in), which neither grows nor shrinks δ much.
    """
    generator = torch.Generator().manual_seed(seed)
    for blocker in blockers:
        if blocker.replaced:
            weight = twin.parameters[blocker.name]
            fan_in = max(math.prod(weight.shape[1:]), 1)
            values = torch.randn(
                weight.shape, generator=generator, dtype=torch.float64, device="cpu"
            )
            twin.fill(blocker.name, values / math.sqrt(fan_in))
