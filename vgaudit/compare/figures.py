"""The figures of one scan that a comparison is about."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vgaudit.compare.sides import Side
from vgaudit.findings import Report, Status
from vgaudit.flow import GradientFlow
from vgaudit.scores import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one scan that a comparison is about.

    Attributes:
        status: of the report.
        attenuation: trunk attenuation in decades; None where there is none.
        spread: decades between the largest and the smallest gradient at the
            outputs of weight layers (max/min over layers); infinite where one is 0.
        saturated: the largest share of saturated elements of any activation that
            can saturate, and of the state of any plain recurrent layer; gates aside,
            None without one.
        saturated_gate: the same of gates, those of LSTMs and GRUs among them.
        variation: standard deviation of the output over samples, relative to its
            size; near 0 the forward signal has collapsed.
        errors, warnings: number of findings.
        side: what was measured; None of a run that failed, and in reports of versions
            that did not record it.
        score: how good the model is, where that is known.
    """

    status: Status
    attenuation: float | None
    spread: float | None
    saturated: float | None
    variation: float | None
    errors: int
    warnings: int
    saturated_gate: float | None = None
    side: Side | None = None
    score: Score | None = None


def figures(report: Report) -> Figures:
    """Returns the figures of a report that a comparison shows."""
    flow = report.audit.flow if report.audit is not None else None
    attenuation = flow.attenuation if flow is not None else None
    return Figures(
        status=report.status,
        attenuation=attenuation.value if attenuation is not None else None,
        spread=_spread(flow) if flow is not None else None,
        saturated=_saturated(flow, gates=False) if flow is not None else None,
        saturated_gate=_saturated(flow, gates=True) if flow is not None else None,
        variation=flow.output_variation if flow is not None else None,
        errors=report.count("error"),
        warnings=report.count("warning"),
    )


def _spread(flow: GradientFlow) -> float | None:
    layers = [layer for layer in flow.layers if layer.weighted]
    if any(layer.zero_gradient for layer in layers):
        return math.inf
    values = [
        layer.attenuation.value for layer in layers if layer.attenuation is not None
    ]
    return max(values) - min(values) if len(values) > 1 else None


def _saturated(flow: GradientFlow, *, gates: bool) -> float | None:
    """Returns the largest share of saturated elements, of gates or of the others.

    What is a gate, and what can saturate, is as VG301 judges it: the state of a plain
    recurrent layer is an activation.
    """
    shares = [
        layer.activation.saturated
        for layer in flow.layers
        if layer.activation is not None
        and layer.activation.bounded
        and layer.activation.gate == gates
    ]
    shares += [
        gate.saturated
        for cell in flow.recurrences
        for gate in cell.gates
        if gate.kind != "relu" and (gate.name != "state") == gates
    ]
    return max(shares, default=None)
