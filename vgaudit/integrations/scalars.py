"""The few figures of a flow that are worth a curve over the training."""

from __future__ import annotations

from vgaudit.findings import LEVELS, Report
from vgaudit.flow import GradientFlow

PREFIX = "vgaudit"


def scalars(flow: GradientFlow) -> dict[str, float]:
    """Returns the figures of a flow by name; those that were not measured are left out.

    ``vgaudit/attenuation``, ``vgaudit/decades_per_layer`` and ``vgaudit/worst_step``
    are decades; ``vgaudit/saturated_share`` and ``vgaudit/dead_share`` are those of the
    activation that has most, gates aside.
    """
    worst = flow.worst_step
    seen = [
        layer.activation
        for layer in flow.layers
        if layer.activation is not None and not layer.activation.gate
    ]
    found = {
        "attenuation": None if flow.attenuation is None else flow.attenuation.value,
        "decades_per_layer": flow.decades_per_layer,
        "worst_step": None if worst is None else worst.gain.value,
        "saturated_share": max((a.saturated for a in seen if a.bounded), default=None),
        "dead_share": max((a.dead_fraction for a in seen if a.units), default=None),
    }
    return {f"{PREFIX}/{name}": v for name, v in found.items() if v is not None}


def judged(report: Report) -> dict[str, float]:
    """Returns the figures of a report: those of its flow, and findings by level."""
    known = scalars(report.audit.flow) if report.audit is not None else {}
    counts = {f"{PREFIX}/{level}s": float(report.count(level)) for level in LEVELS[:2]}
    return {**known, f"{PREFIX}/findings": sum(counts.values()), **counts}
