"""The way of the gradient from the output to the input, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgaudit.flow.figures import Interval

Cause = Literal[
    "activation",
    "weights",
    "normalization",
    "pooling",
    "attention",
    "recurrence",
    "merge",
    "reshape",
    "branches",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkStep:
    """One step of the trunk, from one cut node to the next towards the input.

    Attributes:
        name: the layer or operation that makes the cut node nearer the output.
        layer: path of the layer it belongs to, where there is one.
        op: the autograd operation, or ``a … b`` for a block with branches.
        cause: what kind of operation the step is.
        depth: weight layers between the step and the output.
        attenuation: decades at the step's input side, relative to the output.
        gain: decades of ‖δ after‖ over ‖δ before‖, measured across the step.
    """

    name: str
    layer: str | None
    op: str
    cause: Cause
    depth: int
    attenuation: Interval
    gain: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchFlow:
    """A chain of weight layers beside the trunk, between two cut nodes.

    Attributes:
        name: first and last layer, nearest the input first.
        entry: the cut node where the branch leaves the trunk.
        exit: the cut node where it joins again.
        layers: paths of its weight layers, nearest the input first.
        offset: decades of ‖δ at its last layer‖ over ‖δ at ``exit``‖: a
            constant offset is information, not sickness.
        decay: decades of ‖δ at its first layer‖ over ‖δ at its last layer‖.
    """

    name: str
    entry: str
    exit: str
    layers: tuple[str, ...]
    offset: Interval
    decay: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A weight that is exactly zero and stops every gradient below it.

    Attributes:
        name: the parameter.
        layer: its module.
        learns: its own gradient is not zero, so the first step revives it.
        replaced: it was replaced by a random weight for the measurement, so
            that the transport below it could be measured all the same.
    """

    name: str
    layer: str
    learns: bool
    replaced: bool
