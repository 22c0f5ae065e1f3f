"""A model judged by its weights and its graph alone: nothing is run.

The graph comes from fake tensors, the factors of the gradient from the data-free
mean-field theory on the real weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import NothingMeasured
from vgaudit.flow import (
    GradientFlow,
    NotMeasured,
    PlainStretch,
    Precision,
    StaticFlow,
    StaticLayer,
)
from vgaudit.job import ProbeOptions
from vgaudit.probe import state
from vgaudit.probe.activations import KNOWN
from vgaudit.probe.deep.datafree import DataFree
from vgaudit.probe.deep.energy import propagate
from vgaudit.probe.lazy import materialised
from vgaudit.probe.structure import Followed, follow

_PLAIN = frozenset({"weights", "activation", "pooling", "reshape", "scale", "merge"})
_GUARDS = frozenset({"normalization", "branches"})
_LN10 = math.log(10)


_WHY = "nothing was run: --static judges by weights and graph alone"


def static(
    model: nn.Module, batches: Iterable[Batch], options: ProbeOptions
) -> GradientFlow:
    """Returns a flow without figures, but with what weights and graph say.

    Args:
        model: its weights are read, and no more.
        batches: of the first one, only shapes and types count.
        options: mode and seed.

    Raises:
        CannotRun: the way through the model depends on the values of tensors.
        NothingMeasured: there was no batch.
    """
    batch = next(iter(batches), None)
    if batch is None:
        raise NothingMeasured(
            "there was no batch whose shape could be followed",
            hint="leave --data out: made-up inputs do",
        )
    found = read_static(model, batch, mode=options.mode)
    own = next((p.dtype for p in model.parameters()), torch.float32)
    return GradientFlow(
        probe="jacobian",
        mode=options.mode,
        device="none",
        batches=0,
        skipped=0,
        batch_size=0,
        samples=0,
        seed=options.seed,
        precision=Precision(dtype=str(own).removeprefix("torch."), measured="none"),
        attenuation=None,
        weight_layers=found.weight_layers,
        layers=(),
        trunk=(),
        static=found,
        not_measured=(NotMeasured(path="the model", reason=_WHY),),
    )


def read_static(model: nn.Module, batch: Batch, *, mode: str = "train") -> StaticFlow:
    """Returns what weights and graph say of a model on a batch of this shape.

    Raises:
        CannotRun: the way through the model depends on the values of tensors.
    """
    started = time.perf_counter()
    model = state.unwrap(model)
    with torch.inference_mode(False), state.untouched(model), state.eager(model):
        model = materialised(model, [batch])
        state.prepare_mode(model, mode)
        followed = follow(model, batch)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        return _Reading(followed, weights).flow(started)


@dataclass(slots=True)
class _Run:
    """Weight layers one after another on the trunk, the nearest to the output first.

    ``guarded``: a norm or a skip stands at one of its ends.
    """

    nodes: list[int] = field(default_factory=list)
    guarded: bool = False


class _Reading:
    """The trunk of a followed graph with the factors that theory gives it."""

    def __init__(self, followed: Followed, weights: Mapping[str, Tensor]) -> None:
        self._graph, self._blueprint = followed.graph, followed.blueprint
        self._outputs = followed.outputs
        kinds = {site.key: site.kind for site in followed.recording.sites.values()}
        self._free = DataFree(self._graph, self._blueprint, weights, kinds)
        self._names = {row.node: row.path for row in self._blueprint.rows}

    def flow(self, started: float) -> StaticFlow:
        """Returns all that is found."""
        plan = self._blueprint.plan
        known = {node for node in plan.weights if not self._recurs(node)}
        runs = list(self._runs(known))
        stretches = [s for run in runs if (s := self._stretch(run)) is not None]
        covered = {layer.layer for s in stretches for layer in s.layers}
        single = sum(
            len(run.nodes)
            for run in runs
            if run.guarded and not covered.intersection(map(self._name, run.nodes))
        )
        beside = len(known.difference(plan.cuts)) if plan.cuts else 0
        return StaticFlow(
            weight_layers=plan.weight_layers,
            stretches=tuple(reversed(stretches)),
            judged=len(covered) + single + beside,
            predicted=self._predicted(),
            seconds=time.perf_counter() - started,
        )

    def _name(self, node: int) -> str:
        return self._names.get(node, self._graph.kinds[node])

    def _recurs(self, node: int) -> bool:
        """Tells whether a weight is used step by step: of that theory says nothing."""
        names = self._blueprint.plan.parametric[node]
        last = {name.rpartition(".")[2] for name in names}
        return any(name.startswith(("weight_ih", "weight_hh")) for name in last)

    def _runs(self, known: Collection[int]) -> Iterator[_Run]:
        """Yields the runs of weight layers between norms, skips and what is unknown.

        Args:
            known: the weight layers of which theory speaks.
        """
        plan, run = self._blueprint.plan, _Run()
        for step in self._blueprint.budget.steps:
            if step.cause in _PLAIN:
                if step.start in known:
                    run.nodes.append(step.start)
                continue
            run.guarded |= step.cause in _GUARDS
            yield run
            run = _Run(guarded=step.cause in _GUARDS)
            if step.start in known and step.cause in _GUARDS:
                run.nodes.append(step.start)
        last = plan.cuts[-1] if plan.cuts else None
        if last is not None and last in known and last not in run.nodes:
            run.nodes.append(last)
        yield run

    def _stretch(self, run: _Run) -> PlainStretch | None:
        """Returns a run with its factors; None where the theory does not cover it."""
        if len(run.nodes) < 2:
            return None
        energy = propagate(
            self._graph,
            self._blueprint.plan.dag,
            {run.nodes[0]: 1.0},
            self._free,
            self._free.jumps(),
        )
        levels = [energy.at.get(node, math.nan) for node in run.nodes]
        if not all(math.isfinite(level) for level in levels):
            return None
        layers = [
            self._layer(node, levels[place + 1] - level, run.nodes[place + 1])
            for place, (node, level) in enumerate(
                zip(run.nodes[:-1], levels[:-1], strict=True)
            )
        ]
        layers.append(self._layer(run.nodes[-1], 0.0, None))
        feeding = [KNOWN.get(layer.activation) for layer in layers]
        return PlainStretch(
            layers=tuple(reversed(layers)),
            saturating=sum(known is not None and known.bounded for known in feeding),
            decades=levels[-1] / (2 * _LN10),
        )

    def _layer(self, node: int, change: float, below: int | None) -> StaticLayer:
        feeding = None if below is None else self._feeding(node, below)
        slope = 1.0
        if feeding is not None:
            slope = self._free.jumps()[feeding].factor or 0.0
        gain = self._free.signals.gain(node)
        return StaticLayer(
            layer=self._name(node),
            activation="linear" if feeding is None else self._kind(feeding),
            gain=math.nan if gain is None else gain,
            critical=1 / slope if slope else math.nan,
            decades=change / (2 * _LN10),
        )

    def _feeding(self, node: int, below: int) -> int | None:
        """Returns the node of the activation between two layers of the trunk."""
        cuts = self._blueprint.plan.cuts
        between = cuts[cuts.index(node) + 1 : cuts.index(below)]
        known = self._free.signals.activations
        return next((place for place in between if place in known), None)

    def _kind(self, node: int) -> str:
        return self._free.signals.activations[node][1]

    def _predicted(self) -> float | None:
        """Returns the decades from the outputs to the deepest layer of the trunk."""
        plan = self._blueprint.plan
        deepest = [node for node in plan.cuts if node in plan.weights][-1:]
        total = sum(head.numel() for head in self._outputs)
        start: dict[int, float] = {}
        for head in self._outputs:
            if head.grad_fn is not None and head.grad_fn in self._graph.index:
                place = self._graph.index[head.grad_fn]
                start[place] = start.get(place, 0.0) + head.numel() / total
        start = {place: x for place, x in start.items() if place in plan.depth}
        energy = propagate(self._graph, plan.dag, start, self._free, self._free.jumps())
        value = energy.at.get(deepest[0], math.nan) if deepest else math.nan
        return value / (2 * _LN10) if math.isfinite(value) else None
