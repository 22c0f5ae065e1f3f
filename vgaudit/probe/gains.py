"""How the gain of a layer is measured: ‖δ at its input‖ over ‖δ at its output‖.

On a chain what a node passes on is what arrives at the next one, which is
measured anyway. Where others send gradient to the next one too, it is measured
on the edge, as it leaves. An activation made of several operations, as
``z · sigmoid(z)``, passes δ on along several ways that meet at z: only there
their sum can be read, and only where nothing else arrives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from vgaudit.probe import operations
from vgaudit.probe.graph import Graph, Plan

_LARGEST_ACTIVATION = 64


@dataclass(frozen=True, slots=True)
class Span:
    """One layer in the graph.

    Attributes:
        node: the node that made its output.
        entry: the node that made its input, where that is known.
    """

    node: int
    entry: int | None = None


@dataclass(slots=True)
class Gains:
    """Where the gain of each layer is read, by the node of its output.

    Attributes:
        leaving: the positions of the edges along which it passes data on.
        onward: the measured node that alone takes all that it passes on.
    """

    leaving: dict[int, tuple[int, ...]] = field(default_factory=dict)
    onward: dict[int, int] = field(default_factory=dict)


def find(
    graph: Graph, plan: Plan, spans: Collection[Span], measured: Collection[int]
) -> Gains:
    """Returns how to measure the gain of each layer; those that cannot be are left out.

    Args:
        graph: the graph of a forward pass.
        plan: what carries data in it.
        spans: the layers.
        measured: nodes whose arriving gradient is measured.
    """
    arriving = Counter(plan.dag.roots)
    for node in plan.dag.order:
        arriving.update(plan.dag.edges[node])
    found = Gains()
    for span in spans:
        edges = plan.dag.edges[span.node]
        if span.entry is not None and edges != (span.entry,):
            if span.entry in measured and _takes_all(plan, span, arriving):
                found.onward[span.node] = span.entry
        elif len(edges) == 1 and edges[0] in measured and arriving[edges[0]] == 1:
            found.onward[span.node] = edges[0]
        elif edges:
            following = operations.following(graph.nodes[span.node])
            found.leaving[span.node] = tuple(
                place
                for place, child in enumerate(following)
                if child is not None and graph.index[child] in plan.depth
            )
    return found


def _takes_all(plan: Plan, span: Span, arriving: Counter[int]) -> bool:
    """Tells whether all that leaves a layer arrives at its entry, and nothing else."""
    inside = {span.node}
    waiting = [span.node]
    ending = 0
    while waiting:
        node = waiting.pop()
        if node in plan.dag.sources or len(inside) > _LARGEST_ACTIVATION:
            return False
        for child in plan.dag.edges[node]:
            if child == span.entry:
                ending += 1
            elif child not in inside:
                inside.add(child)
                waiting.append(child)
    return span.entry is not None and ending == arriving[span.entry]
