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
    "scale",
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

    @property
    def mean_square_slope(self) -> float | None:
        """The mean of φ′² that the gradient meets, for a step through an activation.

        Weighted by the gradient: Σ(φ′·δ)² / Σδ², which is the square of the gain.
        """
        if self.cause != "activation":
            return None
        return float(10.0 ** (2.0 * self.gain.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchFlow:
    """A chain of weight layers beside the trunk, between two cut nodes or at its ends.

    Attributes:
        name: first and last layer, nearest the input first.
        entry: the cut node where the branch leaves the trunk; empty where it has an
            input of its own, as each of several towers.
        exit: the cut node where it joins again; empty where it ends in an output of
            its own, as each of several heads.
        layers: paths of its weight layers, nearest the input first.
        offset: decades of ‖δ at its last layer‖ over ‖δ at ``exit``‖: a
            constant offset is information, not sickness. Over that at the network's
            outputs where ``exit`` is empty.
        decay: decades of ‖δ at its first layer‖ over ‖δ at its last layer‖.
        steps: its steps, nearest the input first; the first delivers its gradient
            to ``entry``, the last takes it over from ``exit``.
        total: decades of ‖δ that it delivers to ``entry``‖ over ‖δ at ``exit``‖, to
            which the gains of ``steps`` add up; None where it has several ends.
    """

    name: str
    entry: str
    exit: str
    layers: tuple[str, ...]
    offset: Interval
    decay: Interval
    steps: tuple[TrunkStep, ...] = ()
    total: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What one user of a tensor sends back to it.

    Attributes:
        name: the layer or operation that used the tensor.
        norm: decades of the L2 norm of its δ, relative to the network's output.
    """

    name: str
    norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """A tensor with several users, where the gradients of all of them are added up.

    ‖Σδ‖² = Σ‖δ‖² + 2·Σ⟨δᵢ, δⱼ⟩: what arrives is more than the parts where they agree,
    and less where they cancel. Measured on the first batch.

    Attributes:
        name: the layer or operation that made the tensor.
        total: decades of ‖Σδ‖, relative to the network's output.
        arrivals: what each user sends, the greatest first.
        cross: the cross term 2·Σ⟨δᵢ, δⱼ⟩ over Σ‖δ‖²: 0 where the parts are orthogonal,
            −1 where they cancel, users − 1 where all are the same.
    """

    name: str
    total: float
    arrivals: tuple[Arrival, ...]
    cross: float


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
