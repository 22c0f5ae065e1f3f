"""From figures per batch to the way of the gradient: trunk, branches and merges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vgaudit.flow import (
    Arrival,
    BranchFlow,
    Interval,
    Merge,
    RecurrenceFlow,
    TrunkStep,
)
from vgaudit.probe import lags
from vgaudit.probe.assemble import Batches
from vgaudit.probe.budget import Branch, Edge, Step
from vgaudit.probe.interval import decades
from vgaudit.probe.step import Measured


def trunk(batches: Batches) -> tuple[TrunkStep, ...]:
    """Returns the trunk from the input (first) to the output (last).

    There is none where it would hold no weight layer: what two towers are compared
    by is not the way that the gradient takes.
    """
    plan = batches.blueprint.plan
    if plan.weights and not plan.weights.intersection(plan.cuts):
        return ()
    return (*_steps(batches, batches.blueprint.budget.steps, None), *_top(batches))


def _top(batches: Batches) -> Iterator[TrunkStep]:
    """Yields what lies above the first cut node, where there are several outputs."""
    plan = batches.blueprint.plan
    if not plan.cuts or set(plan.dag.roots) == {plan.cuts[0]}:
        return
    gain = batches.attenuation(batches.blueprint.names.get(plan.cuts[0]))
    if gain is not None:
        kind = batches.blueprint.kinds[plan.cuts[0]]
        yield TrunkStep(
            name="outputs",
            layer=None,
            op=f"… {kind}",
            cause="branches",
            depth=0,
            attenuation=gain,
            gain=gain,
        )


def _steps(
    batches: Batches, steps: Sequence[Step], delivery: Edge | None
) -> tuple[TrunkStep, ...]:
    """Returns steps nearest the input first; those without a figure are left out.

    Args:
        batches: what was measured.
        steps: nearest the output first.
        delivery: the edge that ends the last of them, where it is no node's.
    """
    blueprint = batches.blueprint
    names, rows = blueprint.names, {row.node: row for row in blueprint.rows}
    found = []
    for step in steps:
        start, end = names.get(step.start), names.get(step.end)
        if delivery is not None and step is steps[-1]:
            passed = blueprint.key(delivery)
            attenuation = batches.passed(passed, None)
            gain = batches.passed(passed, start)
        else:
            attenuation, gain = batches.attenuation(end), batches.between(start, end)
        if attenuation is None or gain is None:
            continue
        row = rows.get(step.start)
        found.append(
            TrunkStep(
                name=start or step.op,
                layer=row.path if row else None,
                op=step.op,
                cause=step.cause,
                depth=blueprint.plan.depth.get(step.start, 0),
                attenuation=attenuation,
                gain=gain,
            )
        )
    return tuple(reversed(found))


def total(batches: Batches) -> Interval | None:
    """Returns the trunk attenuation: at the deepest weight layer of the trunk.

    A net without one (several outputs of a recurrent layer, two towers whose outputs
    are compared) is judged by all the places together where the data enters.
    """
    plan, names = batches.blueprint.plan, batches.blueprint.names
    weighted = [node for node in plan.cuts if node in plan.weights]
    if weighted or (plan.cuts and not plan.weights):
        return batches.attenuation(names.get((weighted or list(plan.cuts))[-1]))
    entries = [names[node] for node in plan.dag.sources if node in names]

    def ratio(batch: Measured) -> float:
        parts = [batch.at[name] for name in entries if name in batch.at]
        norm = math.hypot(*parts) if parts else math.nan
        return decades(norm, batch.reference)

    return batches.over(ratio)


def branches(batches: Batches) -> tuple[BranchFlow, ...]:
    """Returns the chains of weight layers beside the trunk, with their budgets."""
    found = (_branch(batches, branch) for branch in batches.blueprint.budget.branches)
    return tuple(branch for branch in found if branch is not None)


def _branch(batches: Batches, branch: Branch) -> BranchFlow | None:
    blueprint, chain = batches.blueprint, branch.chain
    names, weights = blueprint.names, blueprint.plan.weights
    layers = [node for node in chain.nodes if node in weights]
    exit_ = None if chain.exit is None else names.get(chain.exit)
    entry = None if chain.entry is None else names.get(chain.entry)
    if chain.exit is None:
        offset = batches.attenuation(names.get(layers[0]))
    else:
        offset = batches.between(exit_, names.get(layers[0]))
    decay = batches.between(names.get(layers[0]), names.get(layers[-1]))
    if offset is None or decay is None:
        return None
    paths = tuple(names[node] for node in reversed(layers))
    total = None
    if branch.delivery is not None:
        total = batches.passed(blueprint.key(branch.delivery), exit_)
    return BranchFlow(
        name=paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]}",
        entry=entry or "",
        exit=exit_ or "",
        layers=paths,
        offset=offset,
        decay=decay,
        steps=_steps(batches, branch.steps, branch.delivery),
        total=total,
    )


def merges(batches: Batches) -> tuple[Merge, ...]:
    """Returns the tensors with several users, nearest the input first."""
    found = []
    for node, edges in batches.blueprint.budget.merges.items():
        keys = [batches.blueprint.key(edge) for edge in edges]
        for batch in batches.measured:
            if all(key in batch.through for key in keys):
                found.append(_merge(batches, batch, node, edges))
                break
    return tuple(merge for merge in reversed(found) if merge is not None)


def _merge(
    batches: Batches, batch: Measured, node: int, edges: Sequence[Edge]
) -> Merge | None:
    blueprint = batches.blueprint
    name = blueprint.names[node]
    total = batch.at.get(name, math.nan)
    parts = [batch.through[blueprint.key(edge)] for edge in edges]
    apart = math.hypot(*parts)
    if not apart or not math.isfinite(total):
        return None
    arrivals = [
        Arrival(name=blueprint.names[edge.node], norm=decades(part, batch.reference))
        for edge, part in zip(edges, parts, strict=True)
    ]
    return Merge(
        name=name,
        total=decades(total, batch.reference),
        arrivals=tuple(sorted(arrivals, key=lambda arrival: -arrival.norm)),
        cross=(total / apart) ** 2 - 1.0,
    )


def recurrences(batches: Batches) -> tuple[RecurrenceFlow, ...]:
    """Returns the gradient against the lag, of the layers in the first batch with it.

    Where that batch is small, of those after it, too.
    """
    seen = [batch.recurrences for batch in batches.measured if batch.recurrences]
    return tuple(
        lags.flow(name, lags.pooled([part[name] for part in seen if name in part]))
        for name in (seen[0] if seen else ())
    )
