"""What a scan measures, as plain immutable numbers: no tensor, no torch.

A measurement ends here. Rules read these values, reports render them, JSON
stores them. All gradients are stated *relative to the gradient at the output
of the network*, in decades (log10), so nothing depends on the scale of the
loss; the few absolute figures say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vgaudit.facts import (
    DataFacts,
    NotMeasured,
    RunFacts,
    Source,
    Structure,
    StructureRow,
    Target,
)

__all__ = [
    "ActivationFlow",
    "Audit",
    "Blocker",
    "BranchFlow",
    "Cause",
    "DataFacts",
    "GradientFlow",
    "Interval",
    "LayerFlow",
    "LossFlow",
    "Moments",
    "NotMeasured",
    "ParameterFlow",
    "Precision",
    "RunFacts",
    "Source",
    "Structure",
    "StructureRow",
    "Target",
    "TrunkStep",
]

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
class Interval:
    """A figure over batches and seeds: mean and its 95 % interval.

    With one batch ``lo == hi == value`` and ``n == 1``: no spread is known.
    """

    value: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean, standard deviation and range of a tensor over all batches."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationFlow:
    """One activation call, over all batches.

    Attributes:
        kind: canonical name, ``relu``, ``sigmoid`` …; the class for a user's own.
        elements: values seen, all batches together.
        samples: samples seen, all batches together.
        input: moments of the pre-activation z.
        output: moments of φ(z).
        slope_mean_square: mean of φ′(z)².
        slope_max: largest |φ′(z)| that φ can have.
        saturated_low: share of elements with |φ′(z)| < 0.05·``slope_max`` on
            the side below the steepest point.
        saturated_high: the same above the steepest point.
        units: channels or features; 0 where they could not be told.
        dead_units: units without any non-zero slope in any sample; with
            ``samples`` seen, such a unit is active with probability
            ≤ ``dead_bound`` (rule of three, 95 %).
        dead_bound: 3 / ``samples``, at most 1.
        bounded: φ has two rails (sigmoid, tanh, …), so it can saturate.
        gate: the output multiplies another tensor (squeeze-excitation, GLU).
    """

    kind: str
    elements: int
    samples: int
    input: Moments
    output: Moments
    slope_mean_square: float
    slope_max: float
    saturated_low: float
    saturated_high: float
    units: int
    dead_units: int
    dead_bound: float
    bounded: bool
    gate: bool

    @property
    def saturated(self) -> float:
        """Share of elements on either rail."""
        return self.saturated_low + self.saturated_high

    @property
    def dead_fraction(self) -> float:
        """Share of units that are dead; 0 where units could not be told."""
        return self.dead_units / self.units if self.units else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFlow:
    """One parameter; tied weights are listed once, with their other names.

    Attributes:
        name: qualified name as in ``named_parameters()``.
        shape: its shape.
        numel: number of elements.
        grad_norm: L2 norm of its gradient (absolute), mean over batches.
        grad_rms: root mean square of its gradient (absolute).
        weight_rms: root mean square of its values.
        grad_to_weight: ``grad_norm`` / L2 norm of the values; None at 0/0.
        zero_fraction: share of gradient elements that are exactly 0, counted on
            the first batch.
        nonfinite: gradient elements that are NaN or infinite, all batches.
        trainable: ``requires_grad``.
        connected: the backward pass reached it (``.grad`` is not None).
        called: its module ran in the forward pass.
        tied: other names of the same parameter.
    """

    name: str
    shape: tuple[int, ...]
    numel: int
    grad_norm: float
    grad_rms: float
    weight_rms: float
    grad_to_weight: float | None
    zero_fraction: float
    nonfinite: int
    trainable: bool
    connected: bool
    called: bool
    tied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFlow:
    """One call of a module with parameters, or of an activation.

    Attributes:
        path: ``layers.0`` for a module; ``block.2 relu#1`` for a function
            called inside the module ``block.2``.
        type: class of the module, or name of the function.
        order: position among all calls of the forward pass, from 0.
        depth: weight layers between this call's output and the network's
            output, along the longest path; 0 for the last layer; None where
            the gradient does not come through.
        call: which call of this module, from 0.
        calls: how often the module was called.
        source: the line that called it, where known.
        trunk: its output is a cut node: everything from input to output
            passes through it.
        weighted: it holds a weight (linear, convolution, recurrent, embedding).
        attenuation: decades of ‖δ‖ at its output over ‖δ‖ at the network's output.
        gain: decades of ‖δ at its input‖ over ‖δ at its output‖.
        zero_gradient: the gradient at its output is exactly 0 in every batch.
        parameters: the parameters it owns, first call only.
        activation: statistics, for activations.
    """

    path: str
    type: str
    order: int
    depth: int | None
    call: int
    calls: int
    source: Source | None
    trunk: bool
    weighted: bool
    attenuation: Interval | None
    gain: Interval | None
    zero_gradient: bool
    parameters: tuple[ParameterFlow, ...] = ()
    activation: ActivationFlow | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """In which precision the figures were taken, and why.

    Attributes:
        dtype: the model's own floating-point type.
        measured: the type in which the figures of this flow were taken.
        reason: why it was measured again, or empty.
        lost: share of parameter gradient elements that are zero in ``dtype``
            and not in ``measured``; None where it was measured once.
        own_attenuation: trunk attenuation in ``dtype``, where measured again.
    """

    dtype: str
    measured: str
    reason: str = ""
    lost: float | None = None
    own_attenuation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFlow:
    """The loss, for the probe that uses one.

    Attributes:
        name: how the loss was given.
        value: mean over batches.
        std: standard deviation over batches.
        nonfinite: batches whose loss was NaN or infinite.
    """

    name: str
    value: float
    std: float
    nonfinite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientFlow:
    """All that one scan measured.

    Attributes:
        probe: ``jacobian`` (random cotangents at the output) or ``loss``.
        mode: ``train`` or ``eval``.
        device: where it ran.
        batches: batches measured. skipped: batches left out (non-finite data).
        batch_size: samples in the first batch. samples: all together.
        seed: the seed of cotangents and synthetic data.
        attenuation: trunk attenuation: decades at the output of the deepest
            weight layer of the trunk; None where no path was found.
        weight_layers: weight layers on the longest path.
        layers: every call, in forward order.
        parameters_total: trainable and frozen parameters of the model.
        trunk: steps from the input (first) to the output (last).
        branches: chains beside the trunk.
        blockers: zero weights that stop the gradient.
        uncalibrated: normalisation layers in eval mode whose running
            statistics were never updated: figures mean nothing then.
        output_variation: standard deviation of the output over samples,
            relative to its root mean square; near 0 the forward signal has
            collapsed. None with one sample.
        input_mean, input_std: of the first floating-point input.
        not_measured: what is missing from this flow, with the reason.
        notes: statements about how the measurement was made.
    """

    probe: Literal["jacobian", "loss"]
    mode: Literal["train", "eval"]
    device: str
    batches: int
    skipped: int
    batch_size: int
    samples: int
    seed: int
    precision: Precision
    attenuation: Interval | None
    weight_layers: int
    layers: tuple[LayerFlow, ...]
    trunk: tuple[TrunkStep, ...]
    branches: tuple[BranchFlow, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    uncalibrated: tuple[str, ...] = ()
    output_variation: float | None = None
    input_mean: float | None = None
    input_std: float | None = None
    loss: LossFlow | None = None
    not_measured: tuple[NotMeasured, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[ParameterFlow, ...]:
        """Every parameter once, in forward order."""
        return tuple(p for layer in self.layers for p in layer.parameters)

    @property
    def decades_per_layer(self) -> float | None:
        """Trunk attenuation over the number of weight layers it crosses."""
        if self.attenuation is None or self.weight_layers < 2:
            return None
        return self.attenuation.value / (self.weight_layers - 1)

    @property
    def worst_step(self) -> TrunkStep | None:
        """The trunk step that loses most."""
        return min(self.trunk, key=lambda step: step.gain.value, default=None)

    def budget(self) -> dict[Cause, float]:
        """Returns the decades that each kind of operation costs on the trunk."""
        total: dict[Cause, float] = {}
        for step in self.trunk:
            total[step.cause] = total.get(step.cause, 0.0) + step.gain.value
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A finished measurement with its circumstances: what rules judge."""

    target: Target
    data: DataFacts
    run: RunFacts
    flow: GradientFlow
    warnings: tuple[str, ...] = field(default=())
