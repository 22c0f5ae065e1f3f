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
from vgaudit.rules.treatment import SHALLOW, conversion, share_of_loss
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


_GATES = {
    "high": "a smaller bias of this gate",
    "low": "a larger bias of this gate",
    "both": "smaller weights of this gate",
}


def _rail(gate: GateFlow) -> str:
    """Returns on which rail most of the saturated values of a gate lie."""
    low, high = gate.saturated_low, gate.saturated_high
    if max(low, high) < 3 * min(low, high):
        return "both"
    return "high" if high > low else "low"


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
        An input that lies off centre: a smaller bias, or normalization before the
        activation. One that is too wide: rotated layers (`convert --to ar`) in nets of
        ten weight layers or fewer, smaller weights (`convert --to rescale`) in deeper
        ones. An output: the logits instead of the probabilities in the loss
        (`binary_cross_entropy_with_logits`). A gate: its bias, away from the rail.

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
                    fix = self._way_out(audit, row, stats)
                    yield replace(self._finding(row, stats, *verdict), fix=fix)
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
            fix=self.advice(
                _GATES[_rail(gate)],
                f"{percent(gate.saturated_high)} lie on its high rail and "
                f"{percent(gate.saturated_low)} on its low one",
            ),
        )

    def _way_out(self, audit: Audit, row: LayerFlow, stats: ActivationFlow) -> Fix:
        """Returns what to do: by what drives the input, and what it costs."""
        mean, std = stats.input.mean, stats.input.std
        lost = share_of_loss(audit.flow, row.path)
        cost = f", and it takes {percent(lost)} of what the trunk loses" if lost else ""
        if row.depth == 0:
            return self.advice(
                "the logits instead of the probabilities in the loss",
                f"nothing follows it, and {percent(stats.saturated)} of its outputs "
                "have no slope left",
            )
        if abs(mean) > std:
            return self.advice(
                "a smaller bias, or normalization before the activation",
                f"its input lies off centre, mean {number(mean)} at a deviation of "
                f"{number(std)}{cost}",
            )
        reason = f"its input deviates by {number(std)}{cost}"
        if stats.gate:
            return self.advice("smaller weights in front of the gate", reason)
        shallow = audit.flow.weight_layers <= SHALLOW
        return conversion(
            audit,
            "ar" if shallow else "rescale",
            text="rotate the layers, so that their inputs leave the rails"
            if shallow
            else "smaller weights, or normalization before the activation",
            reason=reason,
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
            source=layer.source,
        )
