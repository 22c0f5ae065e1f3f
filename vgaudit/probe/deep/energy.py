"""‖δ‖² along the dataflow graph, when each operation's factor on it is known.

Mean-field theory takes the gradient to be independent of what it is multiplied by,
and the parts that meet at a fork to be independent of one another. Then ‖δ‖² moves
through the graph like a quantity: an operation multiplies it by a factor, parts that
meet add up. Kept as logarithms: deep nets leave the range of float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vgaudit.probe.graph import Graph
from vgaudit.probe.trunk import Dag

Factor = Callable[[int, int], float | None]
"""Returns the factor on ‖δ‖² along an edge (node, position); None if unknown."""


@dataclass(frozen=True, slots=True)
class Jump:
    """An activation, of however many operations: from its output to its input."""

    entry: int
    factor: float | None


@dataclass(frozen=True, slots=True)
class Energy:
    """ln ‖δ‖² at the output of each node; NaN where the theory does not reach.

    Attributes:
        at: node → ln ‖δ‖².
        unknown: the node nearest the output whose factor is not known, if any.
    """

    at: dict[int, float]
    unknown: int | None


def propagate(
    graph: Graph,
    dag: Dag,
    start: Mapping[int, float],
    factor: Factor,
    jumps: Mapping[int, Jump],
) -> Energy:
    """Returns the energy everywhere below the outputs.

    Args:
        graph: the autograd graph.
        dag: the part of it that carries data.
        start: ‖δ‖² at the nodes of the outputs.
        factor: of each edge.
        jumps: activations by the node of their output.
    """
    at = {node: _ln(value) for node, value in start.items()}
    unknown = None
    for node in dag.order:
        if node not in at:
            continue
        for child, value in _leaving(graph, dag, node, factor, jumps):
            known = value is not None and not math.isnan(at[node])
            if value is None and unknown is None and not math.isnan(at[node]):
                unknown = node
            passed = at[node] + _ln(value) if known and value is not None else math.nan
            at[child] = add(at[child], passed) if child in at else passed
    return Energy(at, unknown)


def _leaving(
    graph: Graph, dag: Dag, node: int, factor: Factor, jumps: Mapping[int, Jump]
) -> list[tuple[int, float | None]]:
    """Returns where a node passes the gradient on to, with the factor to each."""
    jump = jumps.get(node)
    if jump is not None:
        return [(jump.entry, jump.factor)]
    wanted = set(dag.edges[node])
    parts: dict[int, list[float | None]] = {}
    for position, (child, _) in enumerate(graph.nodes[node].next_functions):
        place = None if child is None else graph.index.get(child)
        if place is not None and place in wanted:
            parts.setdefault(place, []).append(factor(node, position))
    return [(child, _joined(factors)) for child, factors in parts.items()]


def _joined(factors: list[float | None]) -> float | None:
    """Returns the factor of one way, or of several to the same tensor (x·x)."""
    if len(factors) == 1:
        return factors[0]
    known = [math.sqrt(value) for value in factors if value is not None]
    return sum(known) ** 2 if len(known) == len(factors) else None


def add(first: float, second: float) -> float:
    """Returns ln(eᵃ + eᵇ)."""
    high, low = max(first, second), min(first, second)
    if math.isnan(first) or math.isnan(second):
        return math.nan
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _ln(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf if value == 0 else math.nan
