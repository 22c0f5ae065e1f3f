"""The batches of one scan, dealt to several ranks and put together again.

Every rank knows all batches. Of those that can be measured, rank r of N takes the
r-th, the (r + N)-th and so on. What crosses afterwards are the figures of each batch,
to all ranks, in the order of the batches: so the scan is that of one process, and
every rank knows what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vgaudit.distributed.records import Records
from vgaudit.flow import Blocker, GateFlow, Histogram, Interval, Source
from vgaudit.probe.activations import Activation
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.budget import Branch, Budget, Edge, Step
from vgaudit.probe.gains import Gains
from vgaudit.probe.graph import Plan
from vgaudit.probe.lags import Lags
from vgaudit.probe.parameters import ParameterFigures
from vgaudit.probe.recording import Habits
from vgaudit.probe.rows import Row
from vgaudit.probe.step import Measured
from vgaudit.probe.sums import ActivationSums, MomentSums
from vgaudit.probe.trunk import Chain, Dag

if TYPE_CHECKING:
    from vgaudit.distributed.group import Group


@dataclass(frozen=True, slots=True)
class Sharing:
    """The ranks that take part in a scan.

    Attributes:
        group: the ranks.
        fresh: returns the model anew in a type (None for its own), its parameters
            spread over the ranks; None where each rank has a whole model.
    """

    group: Group
    fresh: Callable[[torch.dtype | None], nn.Module] | None = None

    def dealt(self, usable: Sequence[int]) -> list[int]:
        """Returns the batches that this rank measures."""
        return list(usable[self.group.rank :: self.group.size])

    def rounds(self, usable: Sequence[int]) -> list[tuple[int, bool]]:
        """Returns which batch this rank runs in each step that all take together.

        Beside each stands whether it counts: where batches run out, a rank runs the
        first one once more, so that the others are not left alone with their step.
        """
        own = self.dealt(usable)
        spare = -(-len(usable) // self.group.size) - len(own)
        return [(number, True) for number in own] + [(usable[0], False)] * spare


@dataclass(slots=True)
class Share:
    """What one rank measured.

    Attributes:
        numbers: of its batches.
        measured: their figures.
        follows: the blueprint of each, an index into ``graphs``.
        graphs: the blueprints.
        leaves: by blueprint: node → name of its parameter, which is the same
            everywhere, as ``Blueprint.leaves`` is not.
        blocked: zero weights. notes: for the report.
        skipped: passes that were left out. scales: of the loss.
    """

    numbers: list[int] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    follows: list[int] = field(default_factory=list)
    graphs: list[Blueprint] = field(default_factory=list)
    leaves: list[dict[int, str]] = field(default_factory=list)
    blocked: tuple[Blocker, ...] = ()
    notes: list[str] = field(default_factory=list)
    skipped: int = 0
    scales: set[float] = field(default_factory=set)


_RECORDS = Records(
    *(Share, Measured, ParameterFigures, ActivationSums, MomentSums, Activation),
    *(Blueprint, Plan, Dag, Chain, Habits, Row, Source, Budget, Branch, Step, Edge),
    *(Gains, Lags, GateFlow, Interval, Histogram, Blocker),
)


def share(
    numbers: Sequence[int],
    measured: list[Measured],
    follows: Sequence[Blueprint],
    names: dict[int, str],
) -> Share:
    """Returns what this rank measured, ready to cross.

    Args:
        numbers: of the batches.
        measured: their figures.
        follows: the blueprint of each.
        names: ``id`` of a parameter → its name.
    """
    distinct = list({id(blueprint): blueprint for blueprint in follows}.values())
    places = {id(blueprint): place for place, blueprint in enumerate(distinct)}
    return Share(
        numbers=list(numbers),
        measured=measured,
        follows=[places[id(blueprint)] for blueprint in follows],
        graphs=[_described(blueprint) for blueprint in distinct],
        leaves=[
            {node: names[key] for node, key in b.leaves.items() if key in names}
            for b in distinct
        ],
    )


def _described(blueprint: Blueprint) -> Blueprint:
    """Returns what the figures mean, without what serves to measure more of them."""
    return replace(blueprint, leaves={}, habits=Habits(), visits=None)


def joined(
    own: Share, exchange: Callable[[Any], list[Any]]
) -> tuple[Share, list[Blueprint]]:
    """Returns the shares of all ranks as one, in the order of the batches.

    What a scan takes of its first batch alone is kept of that one only.

    Args:
        own: what this rank measured.
        exchange: returns the plain values of all ranks, given this one's.

    Returns:
        the whole, whose ``follows`` is empty, and the blueprint of each batch.
    """
    shares = [_RECORDS.built(part) for part in exchange(_RECORDS.plain(own))]
    graphs: list[tuple[Blueprint, dict[int, str]]] = []
    rows: list[tuple[int, Measured, Blueprint]] = []
    for part in shares:
        alike = [
            _known(graphs, blueprint, leaves)
            for blueprint, leaves in zip(part.graphs, part.leaves, strict=True)
        ]
        for number, batch, place in zip(
            part.numbers, part.measured, part.follows, strict=True
        ):
            rows.append((number, batch, alike[place]))
    rows.sort(key=lambda row: row[0])
    for _, batch, _ in rows[1:]:
        _leave_to_the_first(batch)
    whole = Share(
        numbers=[number for number, _, _ in rows],
        measured=[batch for _, batch, _ in rows],
        blocked=next((part.blocked for part in shares if part.numbers), ()),
        notes=list(dict.fromkeys(note for part in shares for note in part.notes)),
        skipped=sum(part.skipped for part in shares),
        scales={scale for part in shares for scale in part.scales},
    )
    return whole, [blueprint for _, _, blueprint in rows]


def _known(
    graphs: list[tuple[Blueprint, dict[int, str]]],
    blueprint: Blueprint,
    leaves: dict[int, str],
) -> Blueprint:
    """Returns the blueprint of the same graph that came first."""
    for seen, names in graphs:
        same = seen.kinds == blueprint.kinds and seen.edges == blueprint.edges
        if same and names == leaves:
            for place, why in blueprint.unmeasured.items():
                seen.unmeasured.setdefault(place, why)
            return seen
    graphs.append((blueprint, leaves))
    return blueprint


def _leave_to_the_first(batch: Measured) -> None:
    for figures in batch.parameters.values():
        figures.zeros = math.nan
    for sums in batch.activations.values():
        sums.histogram = None
