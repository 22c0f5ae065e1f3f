"""Mean-field theory beside the measurement, along the trunk."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vgaudit.flow import MeanFieldLayer, TheoryFlow
from vgaudit.probe.budget import Step
from vgaudit.probe.deep.datafree import DataFree
from vgaudit.probe.deep.energy import Energy, Factor, Jump, propagate
from vgaudit.probe.deep.factors import Measured
from vgaudit.probe.deep.live import Live
from vgaudit.probe.interval import decades
from vgaudit.probe.observe import sums_of
from vgaudit.probe.sums import ActivationSums

_LN10 = math.log(10)
_CLOSE = 1e-9


class Theory:
    """The predictions for one live pass, made before its backward pass frees it.

    Args:
        live: the pass.

    Attributes:
        energy: ‖δ‖² everywhere, from weights and measured statistics.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        graph, blueprint = live.graph, live.blueprint
        recording = live.recorder.recording
        self._sums = sums_of(recording.observations)
        kinds = {site.key: site.kind for site in recording.sites.values()}
        free = DataFree(graph, blueprint, live.setting.twin.parameters, kinds)
        self._factor: Factor = Measured(graph)
        self._slopes = self._measured_slopes()
        self.energy = self._energy(self._factor, self._slopes)
        self._free = self._energy(free, free.jumps())
        self._variance = self._variances()

    def _measured_slopes(self) -> dict[int, Jump]:
        found = {}
        for row in self._live.blueprint.rows:
            sums = self._sums.get(row.activation)
            if sums is None or row.node is None or row.entry is None:
                continue
            if row.entry in self._live.blueprint.plan.depth:
                found[row.node] = Jump(row.entry, _slope(sums))
        return found

    def _energy(self, factor: Factor, jumps: Mapping[int, Jump]) -> Energy:
        live = self._live
        total = sum(head.numel() for head in live.outputs)
        start: dict[int, float] = {}
        for head in live.outputs:
            node = None if head.grad_fn is None else live.graph.index[head.grad_fn]
            if node is not None and node in live.blueprint.plan.depth:
                start[node] = start.get(node, 0.0) + head.numel() / total
        return propagate(live.graph, live.blueprint.plan.dag, start, factor, jumps)

    def beside(self, at: Mapping[str, float], reference: float) -> TheoryFlow | None:
        """Returns prediction and measurement; None where the theory covers nothing.

        Args:
            at: measured norms by the name of a node.
            reference: norm of the gradient at the outputs.
        """
        blueprint, steps = self._live.blueprint, self._live.blueprint.budget.steps
        covered = [s for s in steps if self._reaches(s.end) and s.end != s.start]
        deepest = self._deepest()
        if not covered or deepest is None:
            return None
        measured = decades(
            at.get(blueprint.names.get(deepest, ""), math.nan), reference
        )
        if not math.isfinite(measured):
            return None
        weights = blueprint.plan.depth[deepest]
        chi = math.exp(self.energy.at[deepest] / weights) if weights else math.nan
        return TheoryFlow(
            layers=tuple(self._layer(s, at, reference) for s in reversed(covered)),
            chi=chi,
            depth_scale=_depth_scale(chi),
            predicted=self._predicted(self.energy, deepest),
            predicted_free=_known(self._predicted(self._free, deepest)),
            measured=measured,
            spread=math.sqrt(self._variance.get(deepest, 0.0)) / (2 * _LN10),
            covered=len(covered),
            steps=len(steps),
            until=self._until(),
        )

    def _reaches(self, node: int) -> bool:
        return math.isfinite(self.energy.at.get(node, math.nan))

    def _deepest(self) -> int | None:
        """Returns the weight layer of the trunk farthest from the output, covered."""
        plan = self._live.blueprint.plan
        found = [n for n in plan.cuts if n in plan.weights and self._reaches(n)]
        return found[-1] if found and plan.depth[found[-1]] else None

    def _layer(
        self, step: Step, at: Mapping[str, float], reference: float
    ) -> MeanFieldLayer:
        names = self._live.blueprint.names
        kind = next(
            (r.type for r in self._live.blueprint.rows if r.node == step.start), step.op
        )
        measured = decades(at.get(names.get(step.end, ""), math.nan), reference)
        return MeanFieldLayer(
            layer=names.get(step.start, step.op),
            kind=kind if step.cause == "activation" else step.cause,
            chi=self._across(self.energy, step),
            chi_free=_known(self._across(self._free, step)),
            predicted=self._predicted(self.energy, step.end),
            measured=measured if math.isfinite(measured) else None,
        )

    @staticmethod
    def _across(energy: Energy, step: Step) -> float:
        both = energy.at.get(step.end, math.nan) - energy.at.get(step.start, math.nan)
        return math.exp(both)

    def _until(self) -> str:
        unknown = self.energy.unknown
        if unknown is None:
            return ""
        call = self._live.callers.of(self._live.graph.nodes[unknown])
        if call is None:
            return self._live.graph.kinds[unknown]
        named = call.path.rpartition(".")[2] == call.function
        return call.path if named else f"{call.path} {call.function}".strip()

    def _predicted(self, energy: Energy, node: int) -> float:
        """Returns the decades of a typical net: less than the mean ‖δ‖² says.

        ‖δ‖² of random nets is log-normal, so its logarithm lies half a variance lower.
        """
        mean = energy.at.get(node, math.nan)
        return (mean - self._variance.get(node, 0.0) / 2) / (2 * _LN10)

    def _variances(self) -> dict[int, float]:
        """Returns Var ln ‖δ‖² at each cut node, from the finite width above it.

        A product of random layers of fan-in n has Var ln ‖δ‖² ≈ Σ (3κ − 1) / n with
        κ = E φ′⁴ / (E φ′²)²: 5/n for ReLU (Hanin and Nica 2020). κ is bounded by
        max φ′² / E φ′².
        """
        kappa = self._kappa_above()
        variance, found = 0.0, {}
        for node in self._live.blueprint.plan.cuts:
            found[node] = variance
            weight = _weight_shape(self._live, node)
            if weight is not None:
                variance += (3 * kappa.get(node, 1.0) - 1) / math.prod(weight[1:])
        return found

    def _kappa_above(self) -> dict[int, float]:
        """Returns κ of the activation that feeds each weight layer of the trunk."""
        found: dict[int, float] = {}
        latest = None
        rows = {row.node: row.activation for row in self._live.blueprint.rows}
        for node in self._live.blueprint.plan.cuts:
            if node in self._live.blueprint.plan.weights:
                latest = node
            sums = self._sums.get(rows.get(node) or "")
            slope = None if sums is None else _slope(sums)
            if latest is not None and sums is not None and slope:
                found[latest] = max(sums.flow().slope_max ** 2 / slope, 1.0)
        return found


def _weight_shape(live: Live, node: int) -> tuple[int, ...] | None:
    plan = live.blueprint.plan
    if node not in plan.weights:
        return None
    shapes = [
        tuple(live.setting.twin.parameters[name].shape)
        for name in plan.parametric[node]
        if live.setting.twin.parameters[name].dim() >= 2
    ]
    return shapes[0] if shapes else None


def _slope(sums: ActivationSums) -> float | None:
    return sums.slope_squares / sums.input.count if sums.input.count else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _depth_scale(chi: float) -> float:
    if math.isnan(chi) or abs(chi - 1) < _CLOSE:
        return math.inf if chi == chi else math.nan
    return -1 / math.log(chi)
