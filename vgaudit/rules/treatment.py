"""Which treatment fits a gradient that is lost, and why: by the budget's figures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence

from vgaudit.findings import Fix
from vgaudit.flow import Audit, GradientFlow, TrunkStep
from vgaudit.rules.wording import percent

COLLAPSED = 1e-3
SATURATED = 0.5
SHALLOW = 10
"""Weight layers up to which rotated layers pay."""


def against_loss(audit: Audit, steps: Sequence[TrunkStep]) -> Fix:
    """Returns the treatment of a gradient that is lost along ``steps``.

    Saturated units want other inputs, small slopes other units, small weights other
    weights or a step of their own; where the output hardly depends on the input no
    optimizer finds what is not there.
    """
    flow = audit.flow
    shares = _shares(steps)
    slopes, weights = shares.get("activation", 0.0), shares.get("weights", 0.0)
    railed = _saturated(flow, steps)
    if railed >= SATURATED and flow.weight_layers <= SHALLOW:
        return _fix(
            audit,
            "ar",
            "rotate the layers, so that their inputs leave the rails",
            f"{percent(railed)} of its activations are saturated",
        )
    if slopes >= max(weights, 0.5):
        most = f"activation slopes make {percent(slopes)} of the loss"
        return _fix(
            audit,
            "adact",
            "activations that can have unit slope, or normalise before each",
            f"{most}, and {percent(railed)} of the values are saturated",
        )
    variation = flow.output_variation
    if variation is not None and variation < COLLAPSED:
        return _fix(
            audit,
            "rescale",
            "rescale the weights before anything else",
            "the outputs hardly depend on the input: the forward signal is lost too",
        )
    if weights > 0:
        return _fix(
            audit,
            "rescale",
            "rescale the weights, or train with a step for each layer (SDAGD)",
            f"weights make {percent(weights)} of the loss, and the signal itself lives",
        )
    return Fix(
        command="vgaudit explain VG101",
        text="normalise before each activation, use one with unit slope, or add skips",
    )


def _fix(audit: Audit, to: str, text: str, reason: str) -> Fix:
    """Returns the treatment, with a command that runs as it stands."""
    target, data = audit.target, audit.data
    words = ["vgaudit", "convert", target.spec, "--to", to]
    words += ["--arch", target.arch] if target.arch else []
    named = data.kind == "real" and not data.spec.startswith("Python object")
    words += ["--data", data.spec] if named else []
    command = shlex.join(words)
    if target.format == "object":
        command = f'vgaudit.convert(model, to="{to}")'
    return Fix(command=command, text=text, reason=reason)


def _shares(steps: Iterable[TrunkStep]) -> dict[str, float]:
    """Returns the share of the loss that each cause makes."""
    lost: dict[str, float] = {}
    for step in steps:
        if step.gain.value < 0 and math.isfinite(step.gain.value):
            lost[step.cause] = lost.get(step.cause, 0.0) + step.gain.value
    whole = sum(lost.values())
    return {cause: value / whole for cause, value in lost.items()}


def _saturated(flow: GradientFlow, steps: Sequence[TrunkStep]) -> float:
    """Returns the share of saturated values over the bounded activations of a way."""
    paths = {step.layer for step in steps}
    seen = [
        x.activation
        for x in flow.layers
        if x.path in paths and x.activation is not None and x.activation.bounded
    ]
    elements = sum(x.elements for x in seen)
    return sum(x.saturated * x.elements for x in seen) / elements if elements else 0.0
