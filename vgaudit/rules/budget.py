"""The gradient budget in words: which kind of operation costs how much."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.flow import BranchFlow, Cause, GradientFlow, TrunkStep
from vgaudit.plain import visible
from vgaudit.rules.wording import decades, percent

NOUNS: dict[Cause, str] = {
    "activation": "activation slopes",
    "weights": "weights",
    "normalization": "normalization",
    "pooling": "pooling",
    "attention": "attention",
    "recurrence": "recurrence",
    "scale": "constant factors",
    "merge": "merges",
    "reshape": "reshapes",
    "branches": "blocks with branches",
    "other": "other operations",
}


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of operation takes from the gradient on its way down.

    Attributes:
        noun: ``sigmoid slopes``, ``weights`` …
        decades: net change over the trunk, negative where gradient is lost.
        share: of all that is lost; 0 for what gives gradient back.
    """

    noun: str
    decades: float
    share: float


def shares(flow: GradientFlow) -> tuple[Share, ...]:
    """Returns the budget of the trunk, the greatest loss first."""
    kinds = {x.path: x.activation.kind for x in flow.layers if x.activation is not None}
    total: dict[str, float] = {}
    for step in flow.trunk:
        noun = _noun(step, kinds)
        total[noun] = total.get(noun, 0.0) + step.gain.value
    lost = sum(value for value in total.values() if value < 0)
    rows = (
        Share(noun=noun, decades=value, share=value / lost if value < 0 else 0.0)
        for noun, value in total.items()
    )
    return tuple(sorted(rows, key=lambda row: row.decades))


def sentence(flow: GradientFlow, *, least: float = 0.01) -> str:
    """Returns ``sigmoid slopes 61 %, weights 39 %``, or nothing where nothing is lost.

    Args:
        flow: the measurement.
        least: the smallest share that is worth its words.
    """
    rows = shares(flow)
    parts = [f"{row.noun} {percent(row.share)}" for row in rows if row.share >= least]
    if not parts:
        return ""
    lost = -sum(row.decades for row in rows if row.decades < 0)
    given = sum(row.decades for row in rows if row.decades > 0)
    back = f"; {decades(given)} decades given back" if given > 0.1 * lost else ""
    return ", ".join(parts) + back


def _noun(step: TrunkStep, kinds: dict[str, str]) -> str:
    if step.cause == "activation":
        kind = kinds.get(step.name) or kinds.get(step.layer or "")
        if kind:
            return f"{visible(kind, length=24)} slopes"
    return NOUNS[step.cause]


def way(branch: BranchFlow) -> str:
    """Returns where a branch begins and where it ends."""
    if branch.entry:
        start = f"the branch leaves the trunk at {visible(branch.entry)}"
    else:
        start = "the branch has an input of its own"
    if branch.exit:
        return f"{start} and joins it at {visible(branch.exit)}"
    return f"{start} and ends in an output of its own"
