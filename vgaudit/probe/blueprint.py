"""What is measured in a model: which nodes, under which names.

Made once from the graph and the recording of the first batch, and used again
for every batch whose graph has the same shape.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from vgaudit.flow import Cause
from vgaudit.probe import gains, operations
from vgaudit.probe import graph as graphs
from vgaudit.probe.gains import Gains, Span
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.recording import Habits, Recording
from vgaudit.probe.rows import Callers, Row, table
from vgaudit.probe.trunk import Chain


@dataclass(slots=True)
class Step:
    """One trunk step, from cut node ``start`` (nearer the output) to ``end``."""

    start: int
    end: int
    op: str
    cause: Cause


@dataclass(slots=True)
class Blueprint:
    """Names and structure of all that is measured.

    Attributes:
        kinds, edges, leaves: operations of the graph, its edges and (node → ``id``)
            its parameters, to recognise the same graph again.
        plan: data path, cut nodes, branches.
        habits: what later recordings need to know.
        rows: the layer table in forward order.
        steps: the trunk, output first.
        chains: branches with at least one weight layer.
        names: node → name, for every measured node.
        gains: where the gain of each row is read.
        unmeasured: place → reason.
    """

    kinds: list[str]
    edges: list[tuple[int, ...]]
    leaves: dict[int, int]
    plan: Plan
    habits: Habits
    rows: list[Row]
    steps: list[Step]
    chains: list[Chain]
    names: dict[int, str]
    gains: Gains = field(default_factory=Gains)
    unmeasured: dict[str, str] = field(default_factory=dict)

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
        trunk = {node for step in self.steps for node in (step.start, step.end)}
        rows = {row.node for row in self.rows if row.node is not None}
        beside = {node for chain in self.chains for node in self._ends(chain)}
        return (trunk or set(self.plan.cuts)) | rows | beside

    def _ends(self, chain: Chain) -> set[int]:
        weights = {node for node in chain.nodes if node in self.plan.weights}
        return weights | {chain.exit, chain.entry}


def build(
    model: nn.Module, graph: Graph, recording: Recording, habits: Habits, plan: Plan
) -> Blueprint:
    """Returns the blueprint of a model from its first pass."""
    callers = Callers(recording.calls)
    rows = table(model, graph, recording, plan)
    chains = [
        chain for chain in plan.chains if any(n in plan.weights for n in chain.nodes)
    ]
    names = {row.node: row.key for row in rows if row.node is not None}
    names.update(_other_names(graph, plan, callers, names))
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
        steps=_steps(graph, plan),
        chains=chains,
        names=names,
        unmeasured=dict(recording.unmeasured),
    )
    spans = [
        Span(row.node, row.entry)
        for row in rows
        if row.node is not None and (row.weighted or row.activation)
    ]
    blueprint.gains = gains.find(graph, plan, spans, blueprint.measured)
    return blueprint


def _steps(graph: Graph, plan: Plan) -> list[Step]:
    """Returns the trunk steps; cut nodes that only reshape are passed over."""
    steps: list[Step] = []
    first, single = 0, True
    for place in range(len(plan.cuts) - 1):
        node, following = plan.cuts[place], plan.cuts[place + 1]
        single = single and plan.dag.edges[node] == (following,)
        moves = operations.is_reshape(graph.kinds[following])
        if moves and place + 2 < len(plan.cuts):
            continue
        steps.append(_step(graph, plan, plan.cuts[first : place + 2], single=single))
        first, single = place + 1, True
    return steps


def _step(graph: Graph, plan: Plan, nodes: tuple[int, ...], *, single: bool) -> Step:
    start, end = nodes[0], nodes[-1]
    if not single:
        return Step(
            start, end, f"{graph.kinds[start]} … {graph.kinds[end]}", "branches"
        )
    moving = [n for n in nodes[:-1] if not operations.is_reshape(graph.kinds[n])]
    acting = moving[0] if moving else start
    kind = graph.kinds[acting]
    cause = operations.cause(kind, parametric=acting in plan.parametric)
    return Step(start, end, kind, cause)


def _other_names(
    graph: Graph, plan: Plan, callers: Callers, known: dict[int, str]
) -> dict[int, str]:
    """Returns names for cut nodes that are not rows: ``layer1.0 add#1``."""
    wanted = set(plan.cuts) | {n for chain in plan.chains for n in chain.nodes}
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
