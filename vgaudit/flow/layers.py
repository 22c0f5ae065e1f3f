"""One call of a module or an activation, with its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.facts import Source
from vgaudit.flow.figures import Histogram, Interval, Moments


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
        histogram: of z on the first batch; None where it was not taken.
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
    histogram: Histogram | None = None

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
