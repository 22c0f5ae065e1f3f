"""What is measured in a model: which nodes, under which names.

Made once from the graph and the recording of the first batch, and used again
for every batch whose graph has the same shape.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from vgaudit.probe import budget as budgets
from vgaudit.probe import gains
from vgaudit.probe import graph as graphs
from vgaudit.probe.budget import Budget, Edge
from vgaudit.probe.gains import Gains, Span
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.recording import Habits, Recording, Visit
from vgaudit.probe.rows import Callers, Row, table


@dataclass(slots=True)
class Blueprint:
    """Names and structure of all that is measured.

    Attributes:
        kinds, edges, leaves: operations of the graph, its edges and (node → ``id``)
            its parameters, to recognise the same graph again.
        plan: data path, cut nodes, branches.
        habits: what later recordings need to know.
        rows: the layer table in forward order.
        budget: the steps of trunk and branches, and where gradients are added up.
        names: node → name, for every measured node.
        gains: where the gain of each row is read.
        unmeasured: place → reason.
        visits: the calls of activations in order, by which another pass can be
            followed; None where it cannot.
        recurrent: it has layers whose gradient is taken against the lag.
    """

    kinds: list[str]
    edges: list[tuple[int, ...]]
    leaves: dict[int, int]
    plan: Plan
    habits: Habits
    rows: list[Row]
    budget: Budget
    names: dict[int, str]
    gains: Gains = field(default_factory=Gains)
    unmeasured: dict[str, str] = field(default_factory=dict)
    visits: list[Visit] | None = None
    recurrent: bool = False

    def fits(self, graph: Graph) -> bool:
        """Tells whether ``graph`` has the shape that this was made from."""
        return (
            graph.kinds == self.kinds
            and graph.edges == self.edges
            and all(
                id(graph.leaves.get(node)) == key for node, key in self.leaves.items()
            )
        )

    @property
    def measured(self) -> set[int]:
        """All nodes whose incoming gradient is measured."""
        rows = {row.node for row in self.rows if row.node is not None}
        return self.budget.measured | set(self.plan.cuts[:1]) | rows

    def key(self, edge: Edge) -> str:
        """Returns the name of the gradient that runs along an edge.

        Where that is all that a layer passes on, it has the layer's own name.
        """
        if self.gains.leaving.get(edge.node) == (edge.position,):
            return self.names[edge.node]
        return f"{self.names[edge.node]} → {self.names[edge.child]}#{edge.position}"


def build(
    model: nn.Module, graph: Graph, recording: Recording, habits: Habits, plan: Plan
) -> Blueprint:
    """Returns the blueprint of a model from its first pass."""
    callers = Callers(recording.calls)
    rows = table(model, graph, recording, plan)
    units = {
        row.node: row.entry
        for row in rows
        if row.activation and row.node is not None and row.entry is not None
    }
    budget = budgets.find(graph, plan, units)
    names = {row.node: row.key for row in rows if row.node is not None}
    names.update(_other_names(graph, budget, callers, names))
    own = {id(parameter) for parameter in model.parameters()}
    blueprint = Blueprint(
        kinds=graph.kinds,
        edges=graph.edges,
        leaves={
            node: id(leaf) for node, leaf in graph.leaves.items() if id(leaf) in own
        },
        plan=plan,
        habits=habits,
        rows=rows,
        budget=budget,
        names=names,
        unmeasured=dict(recording.unmeasured),
        visits=None if habits.units else _visits(graph, recording),
    )
    spans = [
        Span(row.node, row.entry)
        for row in rows
        if row.node is not None and (row.weighted or row.activation)
    ]
    blueprint.gains = gains.find(graph, plan, spans, blueprint.measured)
    return blueprint


def _visits(graph: Graph, recording: Recording) -> list[Visit]:
    """Returns the calls of activations with the places of the nodes they made."""
    for visit, node in recording.visits:
        visit.place = -1 if node is None else graph.index.get(node, -1)
    return [visit for visit, _ in recording.visits]


def _other_names(
    graph: Graph, budget: Budget, callers: Callers, known: dict[int, str]
) -> dict[int, str]:
    """Returns names for measured nodes that are not rows: ``layer1.0 add#1``."""
    edges = [edge for edges in budget.merges.values() for edge in edges]
    wanted = budget.measured | {edge.node for edge in (*edges, *budget.deliveries)}
    counts: Counter[str] = Counter()
    names = {}
    for node in sorted(wanted, key=lambda n: graphs.sequence(graph.nodes[n])):
        if node in known:
            continue
        call = callers.of(graph.nodes[node])
        text = f"{call.path} {call.function}".strip() if call else graph.kinds[node]
        if call is not None and not callers.ends(graph.nodes[node]):
            text = f"{text}/{graph.kinds[node]}"
        counts[text] += 1
        names[node] = f"{text}#{counts[text]}"
    return names
