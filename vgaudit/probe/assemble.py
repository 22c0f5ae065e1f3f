"""From figures per batch to the immutable ``GradientFlow``."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from vgaudit.flow import (
    Interval,
    LayerFlow,
    LossFlow,
    NotMeasured,
    ParameterFlow,
)
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.interval import BATCH_SCATTER, Prior, decades, interval
from vgaudit.probe.rows import Row, owner
from vgaudit.probe.state import Weights
from vgaudit.probe.step import Measured
from vgaudit.probe.sums import ActivationSums

Ratio = Callable[[Measured], float]


@dataclass
class Batches:
    """The figures of all batches.

    Joining two of them is joining their lists and sums, so batches, ranks and
    resumed runs are one operation.

    Attributes:
        blueprint: of the graph that most batches have.
        weights: of the model.
        measured: the batches.
        others: further graphs, where control flow depends on the data.
        share: batches that have the main graph.
    """

    blueprint: Blueprint
    weights: Weights
    measured: list[Measured]
    others: tuple[Blueprint, ...] = ()
    share: int = 0

    def over(self, ratio: Ratio) -> Interval | None:
        """Returns the interval of a figure over the batches that have it."""
        values = [ratio(batch) for batch in self.measured]
        values = [value for value in values if not math.isnan(value)]
        return interval(values, self._prior) if values else None

    @cached_property
    def _prior(self) -> Prior:
        return BATCH_SCATTER.of(statistics.fmean(b.samples for b in self.measured))

    def attenuation(self, name: str | None) -> Interval | None:
        """Returns decades of the gradient at a node relative to the output."""
        return self.over(
            lambda batch: decades(batch.at.get(name or "", math.nan), batch.reference)
        )

    def between(self, upper: str | None, lower: str | None) -> Interval | None:
        """Returns decades from one node to a later one on the way back."""
        return self.over(
            lambda batch: decades(
                batch.at.get(lower or "", math.nan), batch.at.get(upper or "", math.nan)
            )
        )

    def passed(self, key: str, upper: str | None) -> Interval | None:
        """Returns decades of what runs along an edge, relative to a node.

        Args:
            key: the name of the edge's gradient.
            upper: the node; None for the output.
        """
        return self.over(
            lambda batch: decades(
                batch.through.get(key, math.nan),
                batch.reference if upper is None else batch.at.get(upper, math.nan),
            )
        )


def join(
    weights: Weights, measured: list[Measured], follows: Sequence[Blueprint]
) -> Batches:
    """Returns the batches under the graph that most of them have.

    Args:
        weights: of the model.
        measured: the batches.
        follows: the blueprint of each.
    """
    counts = Counter(id(blueprint) for blueprint in follows)
    distinct = list({id(blueprint): blueprint for blueprint in follows}.values())
    main = max(distinct, key=lambda blueprint: counts[id(blueprint)])
    others = tuple(blueprint for blueprint in distinct if blueprint is not main)
    return Batches(main, weights, measured, others, counts[id(main)])


def layers(batches: Batches) -> tuple[LayerFlow, ...]:
    """Returns the layer table in forward order, every parameter in it once."""
    sums = _activations(batches.measured)
    rows = _listed(batches)
    bare = _rows_without_gradient(batches, [row for row, _ in rows])
    rows += [(row, batches.blueprint) for row in bare]
    cuts = {id(b): set(b.plan.cuts) for b in (batches.blueprint, *batches.others)}
    table = []
    for order, (row, blueprint) in enumerate(rows):
        activation = sums.get(row.activation) if row.activation else None
        node = row.node
        table.append(
            LayerFlow(
                path=row.path,
                type=row.type,
                order=order,
                depth=None if node is None else blueprint.plan.depth.get(node),
                call=row.call,
                calls=row.calls,
                source=row.source,
                trunk=node in cuts[id(blueprint)],
                weighted=row.weighted,
                attenuation=batches.attenuation(row.key),
                gain=None if node is None else _gain(batches, blueprint, row),
                zero_gradient=_is_zero(batches, row.key),
                parameters=tuple(_parameter(batches, name) for name in row.parameters),
                activation=activation.flow() if activation else None,
            )
        )
    return tuple(table)


def _listed(batches: Batches) -> list[tuple[Row, Blueprint]]:
    """Returns the rows of all graphs, each call and each parameter once."""
    found: list[tuple[Row, Blueprint]] = []
    keys: set[str] = set()
    owned: set[str] = set()
    for blueprint in (batches.blueprint, *batches.others):
        for row in blueprint.rows:
            if row.key in keys:
                continue
            keys.add(row.key)
            fresh = tuple(name for name in row.parameters if name not in owned)
            owned.update(fresh)
            found.append((dataclasses.replace(row, parameters=fresh), blueprint))
    return found


def _gain(batches: Batches, blueprint: Blueprint, row: Row) -> Interval | None:
    onward = blueprint.gains.onward.get(row.node) if row.node is not None else None
    if onward is not None:
        return batches.between(row.key, blueprint.names[onward])
    return batches.over(
        lambda batch: decades(
            batch.through.get(row.key, math.nan), batch.at.get(row.key, math.nan)
        )
    )


def _is_zero(batches: Batches, key: str) -> bool:
    seen = [batch.at[key] for batch in batches.measured if key in batch.at]
    return bool(seen) and all(value == 0 for value in seen)


def _activations(measured: Sequence[Measured]) -> dict[str, ActivationSums]:
    joined: dict[str, ActivationSums] = {}
    for batch in measured:
        for key, sums in batch.activations.items():
            if key in joined:
                joined[key].merge(sums)
            else:
                joined[key] = sums
    return joined


def _rows_without_gradient(batches: Batches, rows: Sequence[Row]) -> list[Row]:
    """Returns rows for the parameters that no measured node uses.

    Their modules did not run, are detached, or run again inside reentrant
    activation checkpointing, where their gradient was caught on the way. Where
    only a part of a module is unused, its own row gets that part too.
    """
    weights = batches.weights
    listed = {name for row in rows for name in row.parameters}
    first = {row.path: row for row in reversed(rows) if row.parameters}
    missing: dict[str, list[str]] = {}
    for name in weights.parameters:
        if name in listed:
            continue
        row = first.get(owner(name))
        if row is None:
            missing.setdefault(owner(name), []).append(name)
        else:
            row.parameters = (*row.parameters, name)
    return [
        Row(
            key=path or names[0],
            path=path or names[0],
            type=weights.types.get(path, "Parameter"),
            node=None,
            order=0,
            parameters=tuple(names),
            weighted=any(weights.parameters[name].dim() >= 2 for name in names),
        )
        for path, names in missing.items()
    ]


def _parameter(batches: Batches, name: str) -> ParameterFlow:
    parameter = batches.weights.parameters[name]
    seen = [b.parameters[name] for b in batches.measured if name in b.parameters]
    weight_norm = batches.weights.norms[name]
    numel = max(parameter.numel(), 1)
    norm = statistics.fmean(figure.norm for figure in seen) if seen else 0.0
    counted = [figure.zeros for figure in seen if not math.isnan(figure.zeros)]
    zeros = statistics.fmean(counted) if counted else numel
    module = owner(name)
    called = any(module in b.called or name in b.used for b in batches.measured)
    return ParameterFlow(
        name=name,
        shape=tuple(parameter.shape),
        numel=parameter.numel(),
        grad_norm=norm,
        grad_rms=norm / math.sqrt(numel),
        weight_rms=weight_norm / math.sqrt(numel),
        grad_to_weight=norm / weight_norm if weight_norm else None,
        zero_fraction=zeros / numel,
        nonfinite=int(sum(figure.nonfinite for figure in seen)),
        trainable=parameter.requires_grad,
        connected=bool(seen),
        called=called,
        tied=tuple(batches.weights.tied.get(name, ())),
    )


def loss(batches: Batches, name: str) -> LossFlow:
    """Returns the loss over the batches."""
    values = [batch.loss for batch in batches.measured]
    finite = [value for value in values if math.isfinite(value)]
    return LossFlow(
        name=name,
        value=statistics.fmean(finite) if finite else math.nan,
        std=statistics.stdev(finite) if len(finite) > 1 else 0.0,
        nonfinite=len(values) - len(finite),
    )


def not_measured(batches: Batches) -> tuple[NotMeasured, ...]:
    """Returns what is missing from the table, each with its reason."""
    rows = [row for row, _ in _listed(batches)]
    found = gaps((batches.blueprint, *batches.others), rows)
    reached = {name for batch in batches.measured for name in batch.at}
    for row in rows:
        if row.node is not None and row.key not in reached:
            found.setdefault(row.key, "its gradient: the backward pass never came by")
    return tuple(NotMeasured(path=path, reason=why) for path, why in found.items())


def gaps(blueprints: Sequence[Blueprint], rows: Sequence[Row]) -> dict[str, str]:
    """Returns what no scan of these graphs can measure: place → reason."""
    found = {
        place: why
        for blueprint in blueprints
        for place, why in blueprint.unmeasured.items()
    }
    for row in rows:
        if row.node is None and row.activation:
            found.setdefault(
                row.key, "its gradient: it runs without one, or in place on a view"
            )
    if any("CheckpointFunction" in blueprint.kinds for blueprint in blueprints):
        found["checkpointed segments"] = (
            "their inner trunk: reentrant checkpointing hides it; "
            "use_reentrant=False shows it"
        )
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
