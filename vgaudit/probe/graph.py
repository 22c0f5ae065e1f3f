"""The autograd graph of one forward pass, read from the output backwards.

It is the exact dataflow along which gradients travel, it exists for every model
that trains, and it needs no tracing: functions, methods, in-place operations,
reused modules and control flow all leave their nodes in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from vgaudit.probe import operations, trunk


@dataclass(slots=True)
class Graph:
    """All nodes reachable from the output.

    Attributes:
        nodes: autograd nodes in a reproducible depth-first order; holding them
            keeps their identity.
        kinds: bare operation names.
        edges: indices of the next nodes, towards the input, with multiplicity.
        roots: indices of the nodes that made the outputs.
        index: position of each node.
        leaves: index of an accumulation node → the leaf tensor.
    """

    nodes: list[Node]
    kinds: list[str]
    edges: list[tuple[int, ...]]
    roots: tuple[int, ...]
    index: dict[Node, int]
    leaves: dict[int, Tensor]


def read(outputs: Sequence[Tensor]) -> Graph:
    """Returns the graph behind ``outputs``; iterative, so any depth works."""
    graph = Graph([], [], [], (), {}, {})
    roots = []
    kind = _Kinds()
    for output in outputs:
        node = output.grad_fn
        if node is not None:
            _collect(node, graph, kind)
            roots.append(graph.index[node])
    graph.roots = tuple(dict.fromkeys(roots))
    return graph


class _Kinds:
    """Bare names of nodes, looked up once for each class of them."""

    def __init__(self) -> None:
        self._known: dict[type[Node], str] = {}

    def __call__(self, node: Node) -> str:
        """Returns the bare name of a node's operation."""
        kind = self._known.get(type(node))
        if kind is None:
            name = node.name()
            kind = operations.kind(name)
            # What Python has no class for is all of one class.
            if name.rpartition("::")[2] == type(node).__name__:
                self._known[type(node)] = kind
        return kind


def _collect(root: Node, graph: Graph, kind: _Kinds) -> None:
    stack = [root]
    fresh: list[Node] = []
    nexts: list[list[Node]] = []
    while stack:
        node = stack.pop()
        if node in graph.index:
            continue
        graph.index[node] = len(graph.nodes)
        graph.nodes.append(node)
        graph.kinds.append(kind(node))
        fresh.append(node)
        following = [c for c in operations.following(node) if c is not None]
        nexts.append(following)
        stack.extend(following)
    for node, following in zip(fresh, nexts, strict=True):
        place = graph.index[node]
        children = tuple(graph.index[child] for child in following)
        graph.edges.append(children)
        if not children and graph.kinds[place].endswith("AccumulateGrad"):
            variable = getattr(node, "variable", None)
            if isinstance(variable, Tensor):
                graph.leaves[place] = variable


@dataclass(slots=True)
class Plan:
    """What is to be measured in a graph, by node index.

    Attributes:
        dag: the part that carries data.
        cuts: cut nodes from the output towards the input.
        chains: branches beside the trunk.
        parametric: data node → names of the parameters it uses directly.
        weights: the parametric nodes that multiply by a weight.
        depth: weight layers between a node and the output, longest path.
        terminal: weight nodes with no other weight between them and the output.
        weight_layers: weight layers on the longest path.
    """

    dag: trunk.Dag
    cuts: tuple[int, ...]
    chains: list[trunk.Chain]
    parametric: dict[int, tuple[str, ...]]
    weights: frozenset[int]
    depth: dict[int, int]
    terminal: frozenset[int] = field(default_factory=frozenset)
    weight_layers: int = 0


def plan(
    graph: Graph,
    entries: Iterable[Node],
    names: dict[int, str],
    made: Collection[Node] = (),
) -> Plan:
    """Returns what to measure.

    Args:
        graph: the graph of a forward pass.
        entries: nodes at which data that needs no gradient meets the first
            tensor that does; where none is known, the deepest weights count.
        names: ``id`` of a leaf → name of the parameter.
        made: the last node of every call that was recorded.
    """
    known = [graph.index[node] for node in entries if node in graph.index]
    fences = {graph.index[node] for node in made if node in graph.index}
    sources = {place for node in known for place in _meeting(graph, node, fences)}
    if not sources:
        roots = [place for root in graph.roots for place in _meeting(graph, root, ())]
        sources = set(roots)
    dag = trunk.restrict(graph.edges, graph.roots, sources)
    parametric = _parameters_of(graph, frozenset(dag.order), names)
    weights = frozenset(
        node for node in parametric if operations.is_weight(graph.kinds[node])
    )
    cuts = trunk.cut_nodes(dag)
    depth = trunk.longest(dag, weights)
    return Plan(
        dag=dag,
        cuts=cuts,
        chains=trunk.branches(dag, cuts),
        parametric=parametric,
        weights=weights,
        depth=depth,
        terminal=frozenset(node for node in weights if depth[node] == 0),
        weight_layers=max((depth[node] + 1 for node in weights), default=0),
    )


def _meeting(graph: Graph, node: int, fences: Collection[int]) -> list[int]:
    """Returns where inside one call the data meets the weights.

    A composite call (a linear layer on three dimensions, a whole LSTM) ends in
    another node than the one that multiplies; the deepest weight operations
    that the call made are those. Other calls' nodes fence it in.
    """
    below: dict[int, bool] = {}
    found = []
    stack = [(node, False)]
    while stack:
        place, leaving = stack.pop()
        inside = [c for c in graph.edges[place] if c not in fences]
        if leaving:
            weight = operations.is_weight(graph.kinds[place])
            deeper = any(below.get(child, False) for child in inside)
            below[place] = weight or deeper
            if weight and not deeper:
                found.append(place)
        elif place not in below:
            below[place] = False
            stack.append((place, True))
            stack.extend((child, False) for child in inside if child not in below)
    return found or [node]


def _parameters_of(
    graph: Graph, data: frozenset[int], names: dict[int, str]
) -> dict[int, tuple[str, ...]]:
    """Returns the parameters that each data node reaches without passing data.

    A weight may be transposed, reparametrised or reshaped on its way; it still
    belongs to the operation that multiplies the data by it.
    """
    memo: dict[int, tuple[str, ...]] = {}
    found = {}
    for node in data:
        own: dict[str, None] = {}
        for child in graph.edges[node]:
            if child not in data:
                own.update(dict.fromkeys(_leaf_names(graph, child, names, memo)))
        if own:
            found[node] = tuple(own)
    return found


def _leaf_names(
    graph: Graph, start: int, names: dict[int, str], memo: dict[int, tuple[str, ...]]
) -> tuple[str, ...]:
    if start in memo:
        return memo[start]
    seen = {start}
    stack = [start]
    found: dict[str, None] = {}
    while stack:
        node = stack.pop()
        leaf = graph.leaves.get(node)
        if leaf is not None and id(leaf) in names:
            found[names[id(leaf)]] = None
        for child in graph.edges[node]:
            if child not in seen:
                seen.add(child)
                stack.append(child)
    memo[start] = tuple(found)
    return memo[start]


def sequence(node: Node) -> int:
    """Returns when a node was made, as a rising number; −1 where unknown."""
    with contextlib.suppress(Exception):
        number: Any = node._sequence_nr()
        return int(number)
    return -1
