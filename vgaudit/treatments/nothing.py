"""What is said where a treatment converts nothing: why, and what would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from vgaudit.conversion import ConvertOptions, Refusal, Treatment
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.treatments.plan import ROTATED, plan_activations, plan_layers
from vgaudit.treatments.recorded import record

_SHOWN = 3
_TREATMENTS: tuple[Treatment, ...] = ("ar", "adact", "rescale")


def nothing(
    model: nn.Module,
    batch: Batch,
    options: ConvertOptions,
    refusals: Sequence[Refusal],
) -> CannotRewrite:
    """Returns the refusal of a conversion without an edit.

    Args:
        model: as it came.
        batch: what it runs on.
        options: what was asked.
        refusals: why each place was left as it is.
    """
    if options.to == "plain":
        return CannotRewrite(
            "VG701 nothing was converted: the model has no auto-rotated layer",
            hint="--to plain turns models converted with --to ar into plain ones",
        )
    reasons = list(dict.fromkeys(f"{r.path}: {r.reason}" for r in refusals))
    shown = "; ".join(reasons[:_SHOWN]) or "the model has no activation"
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return CannotRewrite(
        f"VG701 nothing was converted: {shown}{more}",
        hint=_way_out(list(_others(model, batch, options)), refusals),
    )


def _way_out(others: Sequence[Treatment], refusals: Sequence[Refusal]) -> str:
    ways = []
    if any(refusal.reason == ROTATED for refusal in refusals):
        ways.append("--to plain makes the layers plain again")
    if others:
        ways.append(f"try another treatment: {' or '.join(others)}")
    return "; ".join(ways) or "no other treatment finds more to convert"


def _others(
    model: nn.Module, batch: Batch, options: ConvertOptions
) -> Iterator[Treatment]:
    """Yields the treatments that would find something in the same model."""
    graph = record(model, batch)
    for name in _TREATMENTS:
        # Rescaling changes the function, always.
        if name == options.to or (name == "rescale" and options.preserve):
            continue
        plan = plan_activations if name == "adact" else plan_layers
        found = plan(graph, model, replace(options, to=name))
        if found.layers or found.activations:
            yield name
