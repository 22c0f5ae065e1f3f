"""Which treatment fits a gradient, and why: by the figures of its budget."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vgaudit.findings import Fix
from vgaudit.flow import Audit, Cause, GradientFlow, TrunkStep
from vgaudit.rules.budget import NOUNS
from vgaudit.rules.wording import count, decades, number, percent

COLLAPSED = 1e-3
SATURATED = 0.5
SHALLOW = 10
"""Weight layers up to which rotated layers pay."""

LOST: dict[Cause, str] = {
    "normalization": "less signal in front of the norm: it divides by its deviation",
    "pooling": "pool over fewer values at a time",
    "attention": "a skip around attention, whose softmax averages",
    "recurrence": "a gated cell with its gate open at first, or a skip over time",
    "branches": "a skip around each block, at full strength",
    "scale": "leave the constant factor out, or bring it near 1",
    "other": "normalise before each activation, or add skips",
}
"""What helps where an operation other than slopes and weights takes most."""

GROWN: dict[Cause, str] = {
    "normalization": "larger weights in front of the norm, or clip the gradient",
    "attention": "normalise queries and keys, or clip the gradient",
    "recurrence": "an orthogonal recurrent weight, and clip the gradient",
    "branches": "scale each branch down (by 1/√depth, or from 0), or clip the gradient",
    "scale": "a smaller constant factor, or clip the gradient",
    "other": "initialise with less gain, or clip the gradient",
}
"""What helps where an operation other than weights gives most."""


class _Share(NamedTuple):
    """One cause: its share of all that is lost or gained, and the decades of a step."""

    cause: Cause
    share: float
    steps: int
    each: float


def against_loss(audit: Audit, steps: Sequence[TrunkStep], code: str = "VG101") -> Fix:
    """Returns the treatment of a gradient that is lost along ``steps``.

    Saturated units want other inputs, small slopes other units, small weights other
    weights or a step of their own; where the output hardly depends on the input no
    optimizer finds what is not there.
    """
    flow = audit.flow
    lost = {row.cause: row for row in _shares(steps, sign=-1)}
    slopes, weights = (
        lost[x].share if x in lost else 0.0 for x in ("activation", "weights")
    )
    railed = _saturated(flow, steps)
    if railed >= SATURATED and flow.weight_layers <= SHALLOW:
        return conversion(
            audit,
            "ar",
            text="rotate the layers, so that their inputs leave the rails",
            reason=f"{percent(railed)} of its activations are saturated",
        )
    if slopes >= max(weights, 0.5):
        most = f"activation slopes make {percent(slopes)} of the loss"
        return conversion(
            audit,
            "adact",
            text="activations that can have unit slope, or normalise before each",
            reason=f"{most}, and {percent(railed)} of the values are saturated",
        )
    if "scale" in lost and lost["scale"].share >= 0.5:
        row = lost["scale"]
        return conversion(
            audit,
            "rescale",
            text="leave the constant factor out, or make up for it in the weights",
            reason=_taken(row, "of the loss"),
        )
    variation = flow.output_variation
    if variation is not None and variation < COLLAPSED:
        return conversion(
            audit,
            "rescale",
            text="rescale the weights before anything else",
            reason="the outputs hardly depend on the input: the forward signal is lost "
            f"too (relative spread {number(variation)})",
        )
    if weights > 0 and weights >= max(row.share for row in lost.values()):
        return conversion(
            audit,
            "rescale",
            text="rescale the weights, or train with a step for each layer (SDAGD)",
            reason=f"weights make {percent(weights)} of the loss, "
            "and the signal itself lives",
        )
    return _against(list(lost.values()), LOST, code=code, of="of the loss")


def against_growth(audit: Audit, steps: Sequence[TrunkStep], code: str) -> Fix:
    """Returns the treatment of a gradient that grows along ``steps``.

    Large weights want other weights; what norms, branches and recurrence multiply
    needs a smaller factor there. Clipping bounds the step, not the growth.
    """
    grown = _shares(steps, sign=1)
    if grown and grown[0].cause == "weights":
        top = grown[0]
        return conversion(
            audit,
            "rescale",
            text="rescale the weights, or clip the gradient until they are",
            reason=f"weights make {percent(top.share)} of the growth, a factor of "
            f"{number(10**top.each)} in each of {count(top.steps, 'step')}",
        )
    return _against(grown, GROWN, code=code, of="of the growth")


def conversion(audit: Audit, to: str, *, text: str, reason: str) -> Fix:
    """Returns a treatment by ``convert``, with a command that runs as it stands."""
    target, data = audit.target, audit.data
    words = ["vgaudit", "convert", target.spec, "--to", to]
    words += ["--arch", target.arch] if target.arch else []
    named = data.kind == "real" and not data.spec.startswith("Python object")
    words += ["--data", data.spec] if named else []
    command = shlex.join(words)
    if target.format == "object":
        command = f'vgaudit.convert(model, to="{to}")'
    return Fix(command=command, text=text, reason=reason)


def share_of_loss(flow: GradientFlow, layer: str) -> float:
    """Returns the share of what the trunk loses that is lost at one layer."""
    finite = [s for s in flow.trunk if math.isfinite(s.gain.value) and s.gain.value < 0]
    whole = math.fsum(step.gain.value for step in finite)
    own = math.fsum(step.gain.value for step in finite if step.layer == layer)
    return own / whole if whole else 0.0


def _against(
    rows: Sequence[_Share], ways: dict[Cause, str], *, code: str, of: str
) -> Fix:
    """Returns what to do about the cause with the greatest share."""
    command = f"vgaudit explain {code}"
    if not rows:
        return Fix(
            command=command,
            text="look at the steps in the JSON report",
            reason="0 of its steps changed the gradient measurably",
        )
    top = max(rows, key=lambda row: row.share)
    return Fix(
        command=command,
        text=ways.get(top.cause, ways["other"]),
        reason=_taken(top, of),
    )


def _taken(row: _Share, of: str) -> str:
    """Returns what one cause takes or gives, in words."""
    share = f"{NOUNS[row.cause]} make {percent(row.share)} {of}"
    return f"{share}, {decades(row.each)} decades a step"


def _shares(steps: Iterable[TrunkStep], *, sign: int) -> list[_Share]:
    """Returns what each cause loses (−1) or gives (1), the greatest share first."""
    found: dict[Cause, list[float]] = {}
    for step in steps:
        if step.gain.value * sign > 0 and math.isfinite(step.gain.value):
            found.setdefault(step.cause, []).append(step.gain.value)
    whole = math.fsum(value for values in found.values() for value in values)
    rows = [
        _Share(cause, math.fsum(v) / whole, len(v), math.fsum(v) / len(v))
        for cause, v in found.items()
    ]
    return sorted(rows, key=lambda row: -row.share)


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
