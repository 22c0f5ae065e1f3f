"""VG301: units that sit on the rails of their activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding, Fix, Level
from vgaudit.flow import ActivationFlow, Audit, GateFlow, LayerFlow, RecurrenceFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import activation, chain, having, layer
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.through_time import reader
from vgaudit.rules.wording import number, percent


def _rails(low: float, high: float, *, gate: bool = False) -> Audit:
    return activation(
        chain(), "layers.5", saturated_low=low, saturated_high=high, gate=gate
    )


def _fused(name: str, low: float) -> Audit:
    kind = "tanh" if name == "state" else "sigmoid"
    gate = GateFlow(
        name=name, kind=kind, mean=0.1, saturated_low=low, saturated_high=0.0
    )
    audit = reader(-0.1)
    (cell,) = audit.flow.recurrences
    return having(audit, recurrences=(replace(cell, gates=(gate,)),))


@dataclass(frozen=True, slots=True)
class SaturatedActivation(Rule):
    """Most of a bounded activation's outputs sit on its rails.

    What it measures:
        The share of elements with |φ′(z)| < 0.05 · max|φ′|, over all batches, for
        activations with two rails (sigmoid, tanh, softsign, hardtanh, …) and for the
        gates inside fused recurrent kernels. It comes
        from the derivative itself, so it needs no table of input ranges, and tells
        the low rail from the high one.

    Why it matters:
        Where the slope is gone, so is the gradient of everything below, whatever
        the weights. Both rails at once mean weights that are too large; one rail
        means a bias or a shifted input.

    False alarms:
        Gates (squeeze-excitation, GLU, LSTM) are meant to open and close; they get
        a warning at most, and late. An output activation (no weight layer after it)
        is saturated where the model is certain, or by a prior in its bias: that is
        information.

    Treatments:
        Smaller weights or a rescaled initialisation; normalization before the
        activation; the logits instead of the probabilities in the loss
        (`binary_cross_entropy_with_logits`).

    References:
        Glorot and Bengio 2010, “Understanding the difficulty of training deep
        feedforward neural networks”; Rakitianskaia and Engelbrecht 2015, “Measuring
        saturation in neural networks”.
    """

    warning: float = threshold(0.5, "share of saturated elements; at or above it")
    error: float = threshold(0.9, "share of saturated elements; at or above it")
    gate_warning: float = threshold(0.9, "share for a gate; at or above it a warning")

    code: ClassVar[str] = "VG301"
    name: ClassVar[str] = "saturated-activation"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("both rails, nearly all", _rails(0.4, 0.55), "error"),
        Example("three fifths", _rails(0.0, 0.6), "warning"),
        Example(
            "an output that is sure of itself",
            layer(_rails(0.95, 0.0), "layers.5", depth=0),
            "info",
        ),
        Example("a gate that is shut", _rails(0.95, 0.0, gate=True), "warning"),
        Example("a shut gate inside an LSTM", _fused("forget", 0.95), "warning"),
        Example("the state of a plain recurrent layer", _fused("state", 0.92), "error"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("two percent", chain()),
        Example("a gate that works", _rails(0.4, 0.45, gate=True)),
        Example("an open gate inside an LSTM", _fused("forget", 0.6)),
        Example(
            "a ReLU has no rails",
            activation(chain(kind="relu"), "layers.5", saturated_low=0.95),
        ),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each saturated activation call."""
        for row in audit.flow.layers:
            stats = row.activation
            if stats is not None and stats.bounded:
                verdict = self._verdict(stats, output=row.depth == 0)
                if verdict is not None:
                    yield self._finding(row, stats, *verdict)
        for flow in audit.flow.recurrences:
            for gate in flow.gates:
                if gate.kind != "relu":
                    yield from self._fused(flow, gate)

    def _fused(self, flow: RecurrenceFlow, gate: GateFlow) -> Iterator[Finding]:
        """Yields what is wrong with a gate inside a fused kernel."""
        state = gate.name == "state"
        limits: tuple[tuple[Level, float], ...] = (
            (("error", self.error), ("warning", self.warning))
            if state
            else (("warning", self.gate_warning),)
        )
        reached = [(x, y) for x, y in limits if gate.saturated >= y]
        if not reached:
            return
        level, limit = reached[0]
        what = "state" if state else f"{gate.name} gate"
        yield Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=f"{flow.layer} {gate.name}",
            layers=(flow.layer,),
            message=(
                f"{percent(gate.saturated)} of the {what} of {visible(flow.layer)} is "
                f"saturated: high rail {percent(gate.saturated_high)}, low rail "
                f"{percent(gate.saturated_low)} (limit {percent(limit)})"
            ),
            value=gate.saturated,
            limit=limit,
            unit="share",
            fix=Fix(
                command="vgaudit explain VG301",
                text="smaller weights, or a smaller bias of this gate",
            ),
        )

    def _verdict(
        self, stats: ActivationFlow, *, output: bool
    ) -> tuple[Level, float] | None:
        if output:
            return ("info", self.error) if stats.saturated >= self.error else None
        if stats.gate:
            gate = stats.saturated >= self.gate_warning
            return ("warning", self.gate_warning) if gate else None
        if stats.saturated >= self.error:
            return "error", self.error
        if stats.saturated >= self.warning:
            return "warning", self.warning
        return None

    def _finding(
        self, layer: LayerFlow, stats: ActivationFlow, level: Level, limit: float
    ) -> Finding:
        what = f"{stats.kind} gate" if stats.gate else stats.kind
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=layer.path,
            layers=(layer.path,),
            message=(
                f"{percent(stats.saturated)} of the {what} {visible(layer.path)} is "
                f"saturated: high rail {percent(stats.saturated_high)}, low rail "
                f"{percent(stats.saturated_low)} (limit {percent(limit)})"
            ),
            value=stats.saturated,
            limit=limit,
            unit="share",
            evidence=(
                f"its input has mean {number(stats.input.mean)} and standard deviation "
                f"{number(stats.input.std)}",
            ),
            fix=Fix(
                command="vgaudit explain VG301",
                text="smaller weights, or normalization before the activation",
            ),
            source=layer.source,
        )
