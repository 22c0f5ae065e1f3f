"""Recurrent nets written as a loop: one layer that is called once per step.

The autograd graph shows them: calls of one weight, each of which reads what the call
before it made, with fresh data in between. The tensors by which the calls are joined
are the states, and the gradient of a random projection of the last one against the
others is the gradient against the lag.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from vgaudit.probe import cells, operations
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.lags import Lags, direction, sample_logs
from vgaudit.probe.rows import Row, owner

FEWEST = 4
"""Calls from which one layer may be a loop over time."""

MOST = 8
_FURTHEST = 4096
_NEAR = 12


@dataclass(frozen=True, slots=True)
class State:
    """One state: an output of a node. ``node``: its index; ``number``: which output."""

    node: int
    number: int


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop over time.

    Attributes:
        name: the module whose weight is called step by step.
        states: the states that the calls read, the last one first.
        kind: as in ``RecurrenceFlow``.
        last_only: the output reads the last state alone.
    """

    name: str
    states: tuple[State, ...]
    kind: cells.Kind
    last_only: bool


def find(
    graph: Graph, plan: Plan, rows: Iterable[Row], fused: Collection[str]
) -> list[Loop]:
    """Returns the loops over time in a graph.

    Args:
        graph: the graph of a forward pass.
        plan: what carries data in it.
        rows: the layer table.
        fused: paths of modules that are measured as fused kernels.
    """
    calls: dict[str, list[int]] = {}
    homes: dict[str, str] = {}
    for row in rows:
        if row.weighted and row.node is not None and row.calls >= FEWEST:
            calls.setdefault(row.path, []).append(row.node)
            named = row.path in row.parameters
            homes.setdefault(row.path, owner(row.path) if named else row.path)
    search = _Search(graph, plan)
    distance = _distances(plan)
    names: dict[tuple[State, ...], list[str]] = {}
    for path, nodes in calls.items():
        if homes[path] in fused or len(names) >= MOST:
            continue
        states = search.states(nodes)
        if len(states) >= FEWEST - 1:
            names.setdefault(tuple(states), []).append(homes[path] or path)
    return [
        Loop(
            name=_common(paths),
            states=states,
            kind=cells.kind(graph, plan.dag, states[0].node, states[1].node),
            last_only=_one_after_another(states, distance),
        )
        for states, paths in names.items()
    ]


class _Search:
    """Looks for the states that join the calls of one weight."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self._graph, self._plan = graph, plan
        self._place = {node: place for place, node in enumerate(plan.dag.order)}
        self._cuts = sorted(self._place[node] for node in plan.cuts)
        self._fresh = {
            place for node, place in self._place.items() if self._reads(node)
        }

    def states(self, nodes: Sequence[int]) -> list[State]:
        """Returns the states, the last one first, as far as the calls are joined."""
        later = sorted(nodes, key=self._place.__getitem__)
        found: list[State] = []
        for call, before in pairwise(later):
            state = None if self._apart(call, before) else self._state(call, before)
            if state is None:
                break
            found.append(state)
        return found

    def _apart(self, call: int, before: int) -> bool:
        """Tells whether all data passes through one tensor between two calls.

        Then a shared layer is applied several times, and nothing is read on the way;
        unless a weight times fresh data, which needs no gradient, is added there.
        """
        low, high = self._place[call], self._place[before]
        between = range(low, high + 1)
        joined = any(low < cut < high for cut in self._cuts)
        return joined and not any(place in self._fresh for place in between)

    def _reads(self, node: int) -> bool:
        """Tells whether a node takes in the product of a weight with fresh data."""
        waiting = [c for c in self._graph.edges[node] if c not in self._place]
        for _ in range(_NEAR):
            if not waiting:
                break
            place = waiting.pop()
            kind = self._graph.kinds[place]
            if operations.is_weight(kind) and not kind.startswith("Embedding"):
                return True
            waiting.extend(self._graph.edges[place])
        return False

    def _state(self, call: int, before: int) -> State | None:
        """Returns the input of a call through which the call before it is reached."""
        node = call
        for _ in range(_FURTHEST):
            step = next(
                (
                    (child, number)
                    for child, number in self._inputs(node)
                    if self._reaches(child, before)
                ),
                None,
            )
            if step is None:
                return None
            kind = self._graph.kinds[step[0]]
            joins = operations.is_reshape(kind) or kind == "Cat"
            if step[0] == before or not joins:
                return State(*step)
            node = step[0]
        return None

    def _inputs(self, node: int) -> Iterator[tuple[int, int]]:
        for child, number in self._graph.nodes[node].next_functions:
            if child is not None and (place := self._graph.index[child]) in self._place:
                yield place, number

    def _reaches(self, start: int, target: int) -> bool:
        """Tells whether a path leads from one node on to another."""
        end = self._place[target]
        seen, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            if node == target:
                return True
            for child in self._plan.dag.edges[node]:
                if child not in seen and self._place[child] <= end:
                    seen.add(child)
                    waiting.append(child)
        return False


def _distances(plan: Plan) -> dict[int, int]:
    """Returns the fewest steps from the output to every node."""
    distance = dict.fromkeys(plan.dag.roots, 0)
    waiting = deque(distance)
    while waiting:
        node = waiting.popleft()
        for child in plan.dag.edges[node]:
            if child not in distance:
                distance[child] = distance[node] + 1
                waiting.append(child)
    return distance


def _one_after_another(states: Sequence[State], distance: dict[int, int]) -> bool:
    """Tells whether the output sees early states through all later ones alone.

    An output that reads every state has a way to each that does not grow with time.
    """
    further = distance[states[-1].node] - distance[states[0].node]
    return further >= len(states) - 1


def _common(paths: Sequence[str]) -> str:
    """Returns the module that all weights of a loop belong to."""
    parts = [path.split(".") for path in paths]
    shared = []
    for words in zip(*parts, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) or paths[0]


def measure(graph: Graph, loop: Loop, seed: int, start: int = 0) -> Lags:
    """Returns the gradient against the lag, by one backward pass through the loop.

    It leaves the graph as it was, and no gradient in any weight.

    Args:
        graph: the graph of a forward pass.
        loop: what to follow in it.
        seed: of the random projection.
        start: number of the first sample in the scan.
    """
    last, *others = (_edge(graph, state) for state in loop.states)
    vector = direction(_like(last), seed, start)
    found = torch.autograd.grad(
        (last,), others, (vector,), retain_graph=True, allow_unused=True
    )
    logs = [sample_logs(vector, start)]
    for gradient in found:
        known = gradient is not None
        logs.append(
            sample_logs(gradient, start) if known else [-math.inf] * len(logs[0])
        )
    return Lags(
        kind=loop.kind,
        steps=len(loop.states) + 1,
        logs=logs,
        last_only=loop.last_only,
    )


def between(plan: Plan, loop: Loop) -> list[int]:
    """Returns the nodes that a backward pass through a loop may run."""
    place = plan.dag.order.index
    first, last = loop.states[-1].node, loop.states[0].node
    return list(plan.dag.order[place(last) : place(first) + 1])


def device(graph: Graph, loop: Loop) -> torch.device:
    """Returns where the states of a loop are."""
    return _like(_edge(graph, loop.states[0])).device


def _edge(graph: Graph, state: State) -> GradientEdge:
    return GradientEdge(graph.nodes[state.node], state.number)


def _like(edge: GradientEdge) -> Tensor:
    made = edge.node._input_metadata[edge.output_nr]
    return torch.empty(made.shape, dtype=made.dtype, device=made.device)
