"""Cut nodes and branches of a directed acyclic graph, on plain integers.

The graph runs from the *sink* (the network's output) to the *sources* (where
the data enters); an edge is a gradient that flows from a node to the next.
A *cut node* lies on every path from the sink to a source.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

NESTED = 4
"""Levels down to which ends without a cut node are followed: each time step of a
recurrent layer is a source, and thousands of them would nest."""


@dataclass(frozen=True, slots=True)
class Dag:
    """A graph in which every node lies on a path from the sink to a source.

    Attributes:
        order: the nodes, each before all its successors.
        edges: successors of each node, with multiplicity.
        roots: where the sink enters, with multiplicity.
        sources: nodes at which the data enters.
    """

    order: tuple[int, ...]
    edges: dict[int, tuple[int, ...]]
    roots: tuple[int, ...]
    sources: frozenset[int]


def restrict(
    edges: Sequence[Sequence[int]] | dict[int, Sequence[int]],
    roots: Sequence[int],
    sources: Iterable[int],
) -> Dag:
    """Returns the part of a graph that lies between the roots and the sources."""
    source_set = frozenset(sources)
    order, useful = _postorder(edges, roots, source_set)
    kept = tuple(node for node in reversed(order) if node in useful)
    inner = {
        node: tuple(child for child in edges[node] if child in useful) for node in kept
    }
    alive = tuple(root for root in roots if root in useful)
    return Dag(kept, inner, alive, source_set & useful)


def _postorder(
    edges: Sequence[Sequence[int]] | dict[int, Sequence[int]],
    roots: Sequence[int],
    sources: frozenset[int],
) -> tuple[list[int], set[int]]:
    """Returns nodes with children first, and those that reach a source.

    Iterative: real graphs are deeper than Python's stack.
    """
    order: list[int] = []
    useful: set[int] = set()
    opened: set[int] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                order.append(node)
                if node in sources or any(child in useful for child in edges[node]):
                    useful.add(node)
            elif node not in opened:
                opened.add(node)
                stack.append((node, True))
                stack.extend(
                    (child, False) for child in edges[node] if child not in opened
                )
    return order, useful


def cut_nodes(dag: Dag) -> tuple[int, ...]:
    """Returns the cut nodes, from the sink towards the sources.

    In a topological order a node is on every path if and only if no edge jumps
    over it, that is, when all edges open before it end in it.
    """
    arriving = Counter(dag.roots)
    for node in dag.order:
        arriving.update(dag.edges[node])
    open_edges = len(dag.roots)
    cuts = []
    for node in dag.order:
        if open_edges == arriving[node]:
            cuts.append(node)
        open_edges += len(dag.edges[node]) - arriving[node]
        open_edges += node in dag.sources
    return tuple(cuts)


def longest(dag: Dag, weights: frozenset[int]) -> dict[int, int]:
    """Returns, for each node, the weights passed before it on the longest path."""
    depth = dict.fromkeys(dag.order, 0)
    for node in dag.order:
        below = depth[node] + (node in weights)
        for child in dag.edges[node]:
            depth[child] = max(depth[child], below)
    return depth


@dataclass(frozen=True, slots=True)
class Chain:
    """The cut nodes of one branch, from its exit towards its entry.

    Attributes:
        nodes: cut nodes of the branch alone, nearest the sink first.
        exit: cut node at which the branch joins the trunk (nearer the sink); None
            where it begins at the sink itself, as one of several outputs.
        entry: cut node at which it leaves the trunk; None where it has a source of
            its own, as one of several towers.
    """

    nodes: tuple[int, ...]
    exit: int | None
    entry: int | None


@dataclass(frozen=True, slots=True)
class _Gap:
    """What lies between two neighbouring cut nodes, in topological order.

    Attributes:
        exit: the upper of them, or None for the sink.
        entry: the lower of them, or None for the sources.
        inside: the nodes.
        level: how many branches it lies in.
    """

    exit: int | None
    entry: int | None
    inside: Sequence[int]
    level: int = 0


def branches(dag: Dag, cuts: Sequence[int]) -> list[Chain]:
    """Returns the chains beside the trunk, nested ones included.

    Between two neighbouring cut nodes what remains falls into parts that are
    connected to each other only through the two; each part is a branch with
    cut nodes of its own, and so on inwards. So does what lies between the sink and
    the first cut node, or between the last and the sources, where a network has
    several outputs or several inputs.
    """
    found: list[Chain] = []
    position = {node: place for place, node in enumerate(dag.order)}
    waiting = list(_gaps(dag.order, (None, *cuts, None), level=0))
    while waiting:
        gap = waiting.pop()
        for part in _components(dag, gap.inside):
            order = sorted(part, key=position.__getitem__)
            chain = _chain(dag, order, gap.exit, gap.entry)
            if chain:
                found.append(Chain(chain, gap.exit, gap.entry))
                follow = gap.level < NESTED
                top = (None,) if gap.exit is None and follow else ()
                bottom = (None,) if gap.entry is None and follow else ()
                ends = (*top, *chain, *bottom)
                waiting.extend(_gaps(order, ends, level=gap.level + 1))
    return found


def _gaps(
    order: Sequence[int], ends: Sequence[int | None], *, level: int
) -> Iterator[_Gap]:
    """Yields what lies between neighbours among ``ends``, where anything does."""
    place = {node: index for index, node in enumerate(order)}
    for exit_, entry in itertools.pairwise(ends):
        first = 0 if exit_ is None else place[exit_] + 1
        last = len(order) if entry is None else place[entry]
        if first < last:
            yield _Gap(exit_, entry, order[first:last], level)


def _components(dag: Dag, inside: Sequence[int]) -> list[set[int]]:
    members = set(inside)
    neighbours: dict[int, list[int]] = {node: [] for node in inside}
    for node in inside:
        for child in dag.edges[node]:
            if child in members:
                neighbours[node].append(child)
                neighbours[child].append(node)
    parts = []
    while members:
        part: set[int] = set()
        stack = [members.pop()]
        while stack:
            node = stack.pop()
            part.add(node)
            fresh = [other for other in neighbours[node] if other in members]
            members.difference_update(fresh)
            stack.extend(fresh)
        parts.append(part)
    return parts


def _chain(
    dag: Dag, order: Sequence[int], exit_: int | None, entry: int | None
) -> tuple[int, ...]:
    """Returns the cut nodes of one part, seen from ``exit_`` to ``entry``."""
    part = set(order)
    edges = {node: tuple(c for c in dag.edges[node] if c in part) for node in order}
    above = dag.roots if exit_ is None else dag.edges[exit_]
    roots = tuple(child for child in above if child in part)
    if entry is None:
        ends = dag.sources & part
    else:
        ends = frozenset(node for node in order if entry in dag.edges[node])
    if not roots or not ends:
        return ()
    return cut_nodes(Dag(tuple(order), edges, roots, ends))
