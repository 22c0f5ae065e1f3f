"""The layer table: which rows there are, what they are called, what they own."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from torch import nn
from torch.autograd.graph import Node

from vgaudit.flow import Source
from vgaudit.probe import graph as graphs
from vgaudit.probe import operations
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.naming import class_of
from vgaudit.probe.recording import Call, Recording, Site

_GATE_STEPS = 3
_PARAMETRIZED = re.compile(r"\.?parametrizations\.[^.]+$")


@dataclass(slots=True)
class Row:
    """One row of the layer table: a parametric operation or an activation.

    Attributes:
        key: unique name. path, type, source: as in ``LayerFlow``.
        node: index in the graph; None where no gradient comes through.
        order: position in the forward pass.
        call, calls: which of how many calls.
        parameters: names of the parameters used; the first row owns them.
        weighted: multiplies by a weight.
        activation: key of the activation call, empty for other rows.
        gate: its output multiplies another tensor of the data path.
        entry: node that made the input of an activation, where known.
    """

    key: str
    path: str
    type: str
    node: int | None
    order: int
    call: int = 0
    calls: int = 1
    source: Source | None = None
    parameters: tuple[str, ...] = ()
    weighted: bool = False
    activation: str = ""
    gate: bool = False
    entry: int | None = None


def table(
    model: nn.Module, graph: Graph, recording: Recording, plan: Plan
) -> list[Row]:
    """Returns all rows in forward order."""
    return _joined(
        _parametric_rows(model, graph, plan, Callers(recording.calls)),
        _activation_rows(graph, plan, recording),
    )


def _joined(parametric: list[Row], activations: list[Row]) -> list[Row]:
    """Returns all rows in forward order; an activation with a weight is one row."""
    kept = []
    owner_of = {row.node: row for row in activations if row.node is not None}
    for row in parametric:
        same = None if row.node is None else owner_of.get(row.node)
        if same is None:
            kept.append(row)
        else:
            same.parameters, same.weighted = row.parameters, row.weighted
    return sorted([*kept, *activations], key=lambda row: row.order)


def owner(parameter: str) -> str:
    """Returns the path of the module that a parameter belongs to."""
    return _PARAMETRIZED.sub("", parameter.rpartition(".")[0])


def _parametric_rows(
    model: nn.Module, graph: Graph, plan: Plan, callers: Callers
) -> list[Row]:
    owners = _Owners(model)
    nodes = sorted(plan.parametric, key=lambda n: graphs.sequence(graph.nodes[n]))
    primary = {
        node: owners.primary(plan.parametric[node], callers.of(graph.nodes[node]))
        for node in nodes
    }
    added = _added_biases(primary, plan)
    distinct: dict[str, set[str]] = {}
    for name in (primary[node] for node in nodes if node not in added):
        distinct.setdefault(owner(name), set()).add(name)
    total = Counter(primary.values())
    seen: Counter[str] = Counter()
    owned: set[str] = set()
    latest: dict[str, Row] = {}
    rows = []
    for node in nodes:
        name = primary[node]
        path = owner(name)
        fresh = [n for n in plan.parametric[node] if n not in owned]
        owned.update(fresh)
        if node in added and added[node] in latest:
            home = latest[added[node]]
            home.parameters = (*home.parameters, *sorted(fresh, key=owners.order))
            continue
        label = name if len(distinct[path]) > 1 or not path else path
        call = callers.of(graph.nodes[node])
        latest[name] = latest[path] = Row(
            key=label if seen[name] == 0 else f"{label} call {seen[name] + 1}",
            path=label,
            type=_type(model, path, graph.kinds[node]),
            node=node,
            order=graphs.sequence(graph.nodes[node]),
            call=seen[name],
            calls=total[name],
            source=call.source if call else None,
            parameters=tuple(sorted(fresh, key=owners.order)),
            weighted=node in plan.weights,
        )
        rows.append(latest[path])
        seen[name] += 1
    return rows


def _added_biases(primary: dict[int, str], plan: Plan) -> dict[int, str]:
    """Returns the nodes that only add the bias of a layer, and whose row they join.

    Torch makes a linear layer of two operations where its input does not lie in
    one piece; it is one layer all the same.
    """
    weights = {primary[node] for node in plan.weights}
    homes = {owner(name): name for name in weights}
    found = {}
    for node, name in primary.items():
        path, last = owner(name), name.rpartition(".")[2]
        if path and "bias" in last and node not in plan.weights and path in homes:
            twin = f"{path}.{last.replace('bias', 'weight')}"
            found[node] = twin if twin in weights else homes[path]
    return found


class Callers:
    """Which recorded call made a node.

    A composite function is seen from outside: its last node is known, and the
    inner ones were made just before it.
    """

    def __init__(self, calls: dict[Node, Call]) -> None:
        self._calls = calls
        pairs = sorted(((graphs.sequence(n), c) for n, c in calls.items()), key=_first)
        self._numbers = [number for number, _ in pairs]
        self._ordered = [call for _, call in pairs]

    def of(self, node: Node) -> Call | None:
        """Returns the call that was running when ``node`` was made."""
        if node in self._calls:
            return self._calls[node]
        place = bisect_left(self._numbers, graphs.sequence(node))
        return self._ordered[place] if place < len(self._ordered) else None

    def ends(self, node: Node) -> bool:
        """Tells whether ``node`` is the last one of its call."""
        return node in self._calls


def _first(pair: tuple[int, Call]) -> int:
    return pair[0]


class _Owners:
    """Which parameter names an operation, where there are several or it is tied."""

    def __init__(self, model: nn.Module) -> None:
        self._dims: dict[str, int] = {}
        self._place: dict[str, int] = {}
        self._aliases: dict[int, list[str]] = {}
        self._ids: dict[str, int] = {}
        named = model.named_parameters(remove_duplicate=False)
        for place, (name, parameter) in enumerate(named):
            self._dims[name], self._place[name] = parameter.dim(), place
            self._ids[name] = id(parameter)
            self._aliases.setdefault(id(parameter), []).append(name)

    def order(self, name: str) -> int:
        """Returns the place of a parameter in ``named_parameters()``."""
        return self._place.get(name, 0)

    def primary(self, names: tuple[str, ...], call: Call | None) -> str:
        """Returns the parameter with most dimensions, under the caller's name."""
        chosen = max(
            names, key=lambda name: (self._dims.get(name, 0), -self.order(name))
        )
        aliases = self._aliases.get(self._ids.get(chosen, 0), [chosen])
        here = [name for name in aliases if call and owner(name) == call.path]
        return here[0] if here else chosen


def _type(model: nn.Module, path: str, kind: str) -> str:
    try:
        return class_of(model.get_submodule(path)).__name__ if path else kind
    except AttributeError:
        return kind


def _activation_rows(graph: Graph, plan: Plan, recording: Recording) -> list[Row]:
    parents = _parents(plan)
    rows = []
    last = 0
    for site in recording.sites.values():
        place = graph.index.get(site.node) if site.node is not None else None
        place = place if place in plan.depth else None
        made = site.node or site.after
        if made is not None:
            last = max(last, graphs.sequence(made))
        call, calls = _calls(site, recording)
        rows.append(
            Row(
                key=site.key,
                path=site.path if site.own else site.key,
                type=site.type,
                node=place,
                order=last,
                source=site.source,
                activation=site.key,
                gate=place is not None and _is_gate(graph, plan, parents, place),
                entry=None if site.entry is None else graph.index.get(site.entry),
                call=call,
                calls=calls,
            )
        )
    return rows


def _calls(site: Site, recording: Recording) -> tuple[int, int]:
    """Returns which call of how many, for activations that are modules."""
    if not site.own:
        return 0, 1
    number = int(site.key.rpartition(" call ")[2]) if " call " in site.key else 1
    return number - 1, max(recording.calls_of[site.path], 1)


def _parents(plan: Plan) -> dict[int, list[int]]:
    parents: dict[int, list[int]] = {node: [] for node in plan.dag.order}
    for node in plan.dag.order:
        for child in plan.dag.edges[node]:
            parents[child].append(node)
    return parents


def _is_gate(
    graph: Graph, plan: Plan, parents: dict[int, list[int]], node: int
) -> bool:
    """Tells whether the output of ``node`` does nothing but multiply other data."""
    waiting = [(node, 0)]
    multiplies = False
    while waiting:
        place, steps = waiting.pop()
        for user in parents[place]:
            if graph.kinds[user] == "Mul" and set(plan.dag.edges[user]) != {place}:
                multiplies = True
            elif steps < _GATE_STEPS and operations.is_reshape(graph.kinds[user]):
                waiting.append((user, steps + 1))
            else:
                return False
    return multiplies
