"""All that one scan measured, and the circumstances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vgaudit.facts import DataFacts, NotMeasured, RunFacts, Target
from vgaudit.flow.deep import DeepFlow
from vgaudit.flow.figures import Interval
from vgaudit.flow.layers import LayerFlow, ParameterFlow
from vgaudit.flow.recurrence import RecurrenceFlow
from vgaudit.flow.static import StaticFlow
from vgaudit.flow.transport import Blocker, BranchFlow, Cause, Merge, TrunkStep


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
        merges: tensors with several users, where gradients are added up.
        blockers: zero weights that stop the gradient.
        recurrences: gradient against lag, for recurrent layers.
        uncalibrated: normalisation layers in eval mode whose running
            statistics were never updated: figures mean nothing then.
        output_variation: standard deviation of the output over samples,
            relative to its root mean square; near 0 the forward signal has
            collapsed. None with one sample.
        input_mean, input_std: of the first floating-point input.
        deep: the extra measurements of a deep scan; None without.
        static: what weights and graph say alone; None unless asked for.
        parameters_only: only the gradients of parameters could be measured, as of
            TorchScript.
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
    merges: tuple[Merge, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    recurrences: tuple[RecurrenceFlow, ...] = ()
    uncalibrated: tuple[str, ...] = ()
    output_variation: float | None = None
    input_mean: float | None = None
    input_std: float | None = None
    loss: LossFlow | None = None
    deep: DeepFlow | None = None
    static: StaticFlow | None = None
    parameters_only: bool = False
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
