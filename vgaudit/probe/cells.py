"""What one step of a loop over time does with the state: keep it or squash it.

A gate multiplies something that carries the state: then a part of the state, or none
of it, goes on as it is, and so does the gradient. In a plain cell the output of the
sigmoid is the next state itself, and every step multiplies the gradient by a slope of
at most 1/4. Both hold sigmoids; what these flow into tells them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from torch.autograd.graph import Node

from vgaudit.probe import operations
from vgaudit.probe.graph import Graph
from vgaudit.probe.trunk import Dag

Kind = Literal["cell", "sigmoid-cell", "gated-cell"]

_SIGMOIDS = frozenset({"Sigmoid", "Hardsigmoid"})
_PRODUCTS = frozenset({"Mul", "Addcmul", "Lerp"})
_SCALINGS = frozenset({"Mul", "Div", "Neg", "Add", "Sub", "Rsub"})
_FURTHEST = 32

_Edge = tuple[Node, int]


def kind(graph: Graph, dag: Dag, state: int, before: int) -> Kind:
    """Returns what lies between two neighbouring states of a loop.

    Args:
        graph: the graph of a forward pass.
        dag: the part of it that carries data.
        state: the node that made a state.
        before: the node that made the state before it.
    """
    way = _way(dag, (state, before), ())
    if any("ThnnFused" in graph.kinds[node] for node in way):
        return "gated-cell"
    products = [node for node in way if graph.kinds[node] in _PRODUCTS]
    if any(_is_gated(graph, node, way) for node in products):
        return "gated-cell"
    sigmoids = [n for n in way if graph.kinds[n] in _SIGMOIDS and n != before]
    # With a sum or a product around it, the gradient has another way than its slope.
    around = _way(dag, (state, before), sigmoids)
    return "cell" if around else "sigmoid-cell"


def _way(dag: Dag, ends: tuple[int, int], closed: Collection[int]) -> set[int]:
    """Returns the nodes on all ways from a state back to the one before it.

    Args:
        dag: what carries data.
        ends: the nodes that made the two states.
        closed: nodes that no way may take.
    """
    state, before = ends
    segment = dag.order[dag.order.index(state) : dag.order.index(before) + 1]
    carrying = {before}
    for node in reversed(segment):
        if node not in closed and any(c in carrying for c in dag.edges[node]):
            carrying.add(node)
    found = {state} & carrying
    for node in segment:
        if node in found and node != before:
            found.update(child for child in dag.edges[node] if child in carrying)
    return found


def _is_gated(graph: Graph, node: int, way: set[int]) -> bool:
    """Tells whether a product multiplies something of the state by a sigmoid.

    z·σ(z) is no gate but an activation: both factors are one signal.
    """
    edges = list(_edges(graph, graph.nodes[node]))
    for edge in edges:
        sigmoid = _sigmoid_behind(graph, edge)
        if sigmoid is not None:
            read = next(_edges(graph, sigmoid), None)
            others = [other for other in edges if other not in (edge, read)]
            if any(graph.index[other] in way for other, _ in others):
                return True
    return False


def _sigmoid_behind(graph: Graph, edge: _Edge) -> Node | None:
    """Returns the sigmoid that made a factor, as it is or as 1 − σ, reshaped or not."""
    node = edge[0]
    for _ in range(_FURTHEST):
        name = graph.kinds[graph.index[node]]
        if name in _SIGMOIDS:
            return node
        onward = list(_edges(graph, node))
        moves = operations.is_reshape(name) or name in _SCALINGS
        if not moves or len(onward) != 1:
            return None
        node = onward[0][0]
    return None


def _edges(graph: Graph, node: Node) -> Iterator[_Edge]:
    """Yields where a node's inputs were made; what needs no gradient is left out."""
    for child, number in node.next_functions:
        made, place = operations.behind(child, number)
        if made is not None and made in graph.index:
            yield made, place
