"""Where the gradient budget is read: the steps of trunk and branches, and merges.

A step lies between two nodes whose arriving gradient is measured, and what the first
passes on is all that arrives at the second; so its gain is a ratio of two norms across
one operation, and the gains of a chain add up because nothing lies between them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from vgaudit.flow import Cause
from vgaudit.probe import operations
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.trunk import Chain

_SCALING = frozenset({"Rsqrt", "Var", "Std", "VarMean", "StdMean", "LinalgVectorNorm"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step, from node ``start`` (nearer the output) to ``end``."""

    start: int
    end: int
    op: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of the data path: the gradient that a node sends to another.

    Attributes:
        node: the sender. position: among its next functions.
        child: the receiver.
    """

    node: int
    position: int
    child: int


@dataclass(slots=True)
class Branch:
    """The budget of one chain beside the trunk.

    Attributes:
        chain: its cut nodes, its exit and its entry.
        steps: from the exit (first) to the entry (last).
        delivery: the only edge along which it reaches its entry, if there is one.
    """

    chain: Chain
    steps: list[Step]
    delivery: Edge | None


@dataclass(slots=True)
class Budget:
    """All that is read for the budget.

    Attributes:
        steps: the trunk, output first.
        branches: the chains beside it that hold a weight.
        merges: cut nodes with several users → the edges that arrive there.
    """

    steps: list[Step] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    merges: dict[int, tuple[Edge, ...]] = field(default_factory=dict)

    @property
    def measured(self) -> set[int]:
        """All nodes whose arriving gradient the budget needs."""
        steps = [*self.steps, *(s for branch in self.branches for s in branch.steps)]
        return {node for step in steps for node in (step.start, step.end)} | {
            *self.merges
        }

    @property
    def deliveries(self) -> list[Edge]:
        """The edges that are read on every batch."""
        return [b.delivery for b in self.branches if b.delivery is not None]


def find(graph: Graph, plan: Plan, units: Mapping[int, int]) -> Budget:
    """Returns the budget of a graph.

    Args:
        graph: the graph of a forward pass.
        plan: what carries data in it.
        units: node of an activation → node that made its input: several operations
            that are one activation.
    """
    walk = _Walk(graph, plan, units)
    budget = Budget(steps=list(walk.steps(plan.cuts)))
    for chain in plan.chains:
        if len(_layers(plan, chain)) >= (1 if _between_cuts(chain) else 2):
            budget.branches.append(walk.branch(chain))
    nodes = {*plan.cuts, *(n for b in budget.branches for n in b.chain.nodes)}
    budget.merges = walk.merges(nodes)
    return budget


def _between_cuts(chain: Chain) -> bool:
    return chain.exit is not None and chain.entry is not None


def _layers(plan: Plan, chain: Chain) -> set[tuple[str, ...]]:
    """Returns the weight layers of a chain, each once.

    A chain with an end of its own needs two: embeddings side by side and the steps
    of a recurrent layer are no branches.
    """
    return {plan.parametric[node] for node in chain.nodes if node in plan.weights}


class _Walk:
    """Steps along chains of nodes of one graph."""

    def __init__(self, graph: Graph, plan: Plan, units: Mapping[int, int]) -> None:
        self._graph, self._plan, self._units = graph, plan, units
        self._place = {node: place for place, node in enumerate(plan.dag.order)}
        self._parents: dict[int, list[int]] = {node: [] for node in plan.dag.order}
        for node in plan.dag.order:
            for child in plan.dag.edges[node]:
                self._parents[child].append(node)

    def steps(self, nodes: Sequence[int], *, entry: int = -1) -> Iterator[Step]:
        """Yields the steps along a chain; nodes that only reshape are passed over.

        A reshape keeps the norm, so nothing is lost with it, and the operation beside
        it is the step.

        Args:
            nodes: the chain, nearest the output first.
            entry: its last node, where others send gradient to that node too.
        """
        first = 0
        for place in range(len(nodes) - 1):
            last = place + 2 == len(nodes)
            if last or not operations.is_reshape(self._graph.kinds[nodes[place + 1]]):
                yield self._step(nodes[first : place + 2], entry)
                first = place + 1

    def _step(self, nodes: Sequence[int], entry: int) -> Step:
        kinds, start, end = self._graph.kinds, nodes[0], nodes[-1]
        for node, following in pairwise(nodes):
            if following != entry and set(self._parents[following]) != {node}:
                cause = self._block(node, following)
                return Step(start, end, f"{kinds[start]} … {kinds[end]}", cause)
        moving = [n for n in nodes[:-1] if not operations.is_reshape(kinds[n])]
        acting = moving[0] if moving else start
        parametric = acting in self._plan.parametric
        ways = len(self._plan.dag.edges[acting])
        cause = operations.cause(kinds[acting], parametric=parametric, ways=ways)
        return Step(start, end, kinds[acting], cause)

    def _block(self, node: int, following: int) -> Cause:
        """Returns what a block of several operations is counted as.

        A normalization, an attention or an activation may be written out in single
        operations; with a weight inside it is a block with branches.
        """
        if self._units.get(node) == following:
            return "activation"
        inside = self._plan.dag.order[self._place[node] : self._place[following]]
        if self._plan.weights.intersection(inside[1:]):
            return "branches"
        kinds = {self._graph.kinds[place] for place in inside}
        if any(operations.is_attention(kind) for kind in kinds):
            return "attention"
        causes = {operations.cause(kind, parametric=False) for kind in kinds}
        if "normalization" in causes or kinds & _SCALING:
            return "normalization"
        return "activation" if "activation" in causes else "branches"

    def branch(self, chain: Chain) -> Branch:
        """Returns the budget of one chain."""
        top = () if chain.exit is None else (chain.exit,)
        nodes, last = (*top, *chain.nodes), chain.nodes[-1]
        if chain.entry is None:
            return Branch(chain, list(self.steps(nodes)), None)
        ends = self._edges(last, chain.entry)
        if len(ends) > 1 or set(self._plan.dag.edges[last]) != {chain.entry}:
            return Branch(chain, list(self.steps(nodes)), None)
        # What leaves the chain ends its last step, not what arrives at its entry,
        # where other users of the same tensor send their gradient too.
        steps = list(self.steps((*nodes, chain.entry), entry=chain.entry))
        return Branch(chain, steps, ends[0])

    def merges(self, nodes: Collection[int]) -> dict[int, tuple[Edge, ...]]:
        """Returns the nodes at which gradients are added up, with what arrives."""
        roots = set(self._plan.dag.roots)
        found = {}
        for node in sorted(nodes, key=self._place.__getitem__):
            senders = dict.fromkeys(self._parents[node])
            edges = [edge for parent in senders for edge in self._edges(parent, node)]
            if len(edges) > 1 and node not in roots:
                found[node] = tuple(edges)
        return found

    def _edges(self, node: int, child: int) -> list[Edge]:
        following = operations.following(self._graph.nodes[node])
        return [
            Edge(node, position, child)
            for position, other in enumerate(following)
            if other is not None and self._graph.index[other] == child
        ]
