"""Cut nodes, branches and depth against brute force on random graphs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgaudit.probe import trunk

Edges = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Edges, list[int], list[int]]:
    """Random graphs whose edges go from lower to higher numbers, then shuffled.

    Multi-edges, several roots (also repeated) and several sources occur, and
    nodes that lead nowhere or are never reached.
    """
    size = draw(st.integers(1, 9))
    edges: Edges = [[] for _ in range(size)]
    for node in range(size - 1):
        further = st.integers(node + 1, size - 1)
        edges[node] = draw(st.lists(further, max_size=3))
    sources = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3))
    roots = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3))
    names = draw(st.permutations(range(size)))
    renamed: Edges = [[] for _ in range(size)]
    for node, children in enumerate(edges):
        renamed[names[node]] = [names[child] for child in children]
    return renamed, [names[r] for r in roots], [names[s] for s in sources]


def all_paths(
    edges: Edges, roots: Sequence[int], sources: Sequence[int]
) -> list[tuple[int, ...]]:
    """Returns every path from a root to a source, as node sequences."""
    found = []
    waiting = [(root,) for root in set(roots)]
    while waiting:
        path = waiting.pop()
        if path[-1] in sources:
            found.append(path)
        waiting.extend((*path, child) for child in set(edges[path[-1]]))
    return found


@given(graphs())
@settings(max_examples=400, deadline=None)
def test_a_node_is_a_cut_exactly_if_removing_it_disconnects(graph) -> None:
    edges, roots, sources = graph
    paths = all_paths(edges, roots, sources)
    dag = trunk.restrict(edges, roots, sources)

    on_all = set.intersection(*(set(path) for path in paths)) if paths else set()
    assert set(trunk.cut_nodes(dag)) == on_all
    assert set(dag.order) == {node for path in paths for node in path}
    position = {node: place for place, node in enumerate(dag.order)}
    for node, children in dag.edges.items():
        assert all(position[node] < position[child] for child in children)


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_cuts_come_in_the_order_of_every_path(graph) -> None:
    edges, roots, sources = graph
    cuts = trunk.cut_nodes(trunk.restrict(edges, roots, sources))

    for path in all_paths(edges, roots, sources):
        assert [node for node in path if node in cuts] == list(cuts)


@given(graphs(), st.data())
@settings(max_examples=200, deadline=None)
def test_depth_is_the_longest_path_over_weights(graph, data: st.DataObject) -> None:
    edges, roots, sources = graph
    dag = trunk.restrict(edges, roots, sources)
    weights = frozenset(data.draw(st.sets(st.integers(0, len(edges) - 1))))

    depth = trunk.longest(dag, weights)
    expected = dict.fromkeys(dag.order, 0)
    for path in all_paths(edges, roots, sources):
        for place, node in enumerate(path):
            passed = sum(before in weights for before in path[:place])
            expected[node] = max(expected[node], passed)
    assert depth == expected


End = int | None


def brute_chains(
    edges: Edges, roots: Sequence[int], sources: Sequence[int]
) -> set[tuple[tuple[int, ...], End, End]]:
    """Returns (chain, exit, entry) by their definition, without any algorithm.

    Between neighbouring cut nodes, two nodes belong to one part if they are
    connected once the two are taken away; a chain is what lies on all paths of
    its part. Chains have chains beside them in turn. The sink and the sources
    count as neighbours (None) of the first and the last.
    """
    paths = all_paths(edges, roots, sources)
    if not paths:
        return set()
    found = set()
    first = (None, *_common(paths), None)
    waiting = [(a, b, paths, 0) for a, b in itertools.pairwise(first)]
    while waiting:
        exit_, entry, routes, level = waiting.pop()
        inner = {
            path[
                0 if exit_ is None else path.index(exit_) + 1 : len(path)
                if entry is None
                else path.index(entry)
            ]
            for path in routes
            if exit_ in (None, *path) and entry in (None, *path)
        }
        for part in _parts(edges, {node for path in inner for node in path}):
            own = [path for path in inner if path and path[0] in part]
            chain = _common(own)
            if chain:
                found.add((chain, exit_, entry))
                free = [None] if level < trunk.NESTED else []
                ends = [*chain]
                ends = [*free, *ends] if exit_ is None else ends
                ends = [*ends, *free] if entry is None else ends
                waiting += [(a, b, own, level + 1) for a, b in itertools.pairwise(ends)]
    return found


def _common(paths: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    shared = set.intersection(*(set(path) for path in paths))
    return tuple(node for node in paths[0] if node in shared)


def _parts(edges: Edges, nodes: set[int]) -> list[set[int]]:
    parts = [{node} for node in nodes]
    for node in nodes:
        for child in set(edges[node]) & nodes:
            joined = [part for part in parts if node in part or child in part]
            parts = [part for part in parts if part not in joined]
            parts.append(set().union(*joined))
    return parts


@given(graphs())
@settings(max_examples=400, deadline=None)
def test_branches_are_the_chains_beside_the_trunk(graph) -> None:
    edges, roots, sources = graph
    dag = trunk.restrict(edges, roots, sources)
    found = trunk.branches(dag, trunk.cut_nodes(dag))

    assert {(c.nodes, c.exit, c.entry) for c in found} == brute_chains(
        edges, roots, sources
    )
    assert len(found) == len({(c.nodes, c.exit, c.entry) for c in found})


# ------------------------------------------------------------ examples


def test_a_residual_block_has_its_ends_for_cuts_and_its_inside_for_a_branch() -> None:
    #     0 ── 1 ── 2 ── 3 ── 4      0 joins, 3 splits, 4 is the stem
    #      └─────────────┘
    edges = [[1, 3], [2], [3], [4], []]
    dag = trunk.restrict(edges, [0], [4])

    assert trunk.cut_nodes(dag) == (0, 3, 4)
    assert trunk.branches(dag, (0, 3, 4)) == [trunk.Chain((1, 2), 0, 3)]


def test_a_tensor_used_twice_by_one_operation_is_still_one_way() -> None:
    dag = trunk.restrict([[1, 1], [2], []], [0], [2])

    assert trunk.cut_nodes(dag) == (0, 1, 2)
    assert trunk.branches(dag, (0, 1, 2)) == []


def test_two_outputs_of_one_trunk_share_what_is_below_them() -> None:
    dag = trunk.restrict([[2], [2], [3], []], [0, 1], [3])

    assert trunk.cut_nodes(dag) == (2, 3)


def test_two_separate_towers_have_no_cut() -> None:
    dag = trunk.restrict([[1], [], [3], []], [0, 2], [1, 3])

    assert trunk.cut_nodes(dag) == ()


def test_an_empty_graph_has_nothing() -> None:
    dag = trunk.restrict([], [], [])

    assert (dag.order, trunk.cut_nodes(dag), trunk.longest(dag, frozenset())) == (
        (),
        (),
        {},
    )


# ------------------------------------------------------------ size


def _chain(size: int) -> Edges:
    return [[node + 1] for node in range(size - 1)] + [[]]


def _residual(blocks: int) -> Edges:
    """Each block: join → inner → inner → split, and a skip."""
    edges: Edges = []
    for block in range(blocks):
        base = 3 * block
        edges += [[base + 1, base + 3], [base + 2], [base + 3]]
    return [*edges, []]


def _parallel(arms: int, length: int) -> Edges:
    """Arms of equal length between one join and one split."""
    end = 1 + arms * length
    edges: Edges = [[1 + arm * length for arm in range(arms)]]
    for arm in range(arms):
        first = 1 + arm * length
        edges += [[node + 1] for node in range(first, first + length - 1)] + [[end]]
    return [*edges, []]


def _seconds(edges: Edges) -> float:
    started = time.thread_time()
    last = len(edges) - 1
    dag = trunk.restrict(edges, [0], [last])
    cuts = trunk.cut_nodes(dag)
    trunk.longest(dag, frozenset(range(0, last, 3)))
    trunk.branches(dag, cuts)
    return time.thread_time() - started


def test_a_chain_of_fifty_thousand_nodes_is_all_trunk() -> None:
    edges = _chain(50_000)
    dag = trunk.restrict(edges, [0], [49_999])

    assert trunk.cut_nodes(dag) == tuple(range(50_000))
    assert trunk.longest(dag, frozenset(range(50_000)))[49_999] == 49_999
    assert trunk.branches(dag, trunk.cut_nodes(dag)) == []


@pytest.mark.parametrize(
    "graph",
    [
        _chain(60_000),
        _residual(10_000),
        _parallel(3, 5_000),
        _parallel(5_000, 3),
    ],
    ids=["chain", "residual", "long arms", "many arms"],
)
def test_large_graphs_take_time_in_proportion(graph: Edges) -> None:
    """A quadratic step would take minutes of this thread at this size."""
    assert _seconds(graph) < 5.0
