"""Figures of the whole model that budgets limit and baselines keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vgaudit.errors import BadConfig
from vgaudit.flow import Audit, GradientFlow, Interval, LayerFlow, Source
from vgaudit.plain import nearest, visible
from vgaudit.rules.wording import decades, percent

UNITS_ENOUGH = 8
"""Units from which the share of dead ones means something, as in VG302."""

Unit = Literal["decades", "share", "count"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure, and the place it was read at."""

    figure: Interval
    layer: str = ""
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of the whole model.

    Attributes:
        name: as the configuration writes it.
        meaning: one sentence.
        unit: of its values.
        higher: higher values are better.
        read: takes it from an audit; None where the model has no such thing.
    """

    name: str
    meaning: str
    unit: Unit
    higher: bool
    read: Callable[[Audit], Reading | None]

    def worse(self, value: float, than: float) -> float:
        """Returns by how much a value is worse than another; NaN between infinities."""
        return than - value if self.higher else value - than

    def shown(self, value: float) -> str:
        """Returns a value with its unit."""
        if self.unit == "share":
            return percent(value)
        if self.unit == "count":
            return f"{value:,.0f}"
        return f"{decades(value if abs(value) >= 0.05 else 0.0)} decades"


def metric(name: str) -> Metric:
    """Returns the metric of a name.

    Raises:
        BadConfig: there is none; the hint gives the nearest.
    """
    if name not in METRICS:
        raise BadConfig(
            f"unknown budget '{visible(name)}'",
            hint=f"{nearest(name, METRICS)}known: {', '.join(METRICS)}",
        )
    return METRICS[name]


def readings(audit: Audit) -> dict[str, Reading]:
    """Returns every metric that the model has."""
    found = {name: metric.read(audit) for name, metric in METRICS.items()}
    return {name: reading for name, reading in found.items() if reading is not None}


def _exact(value: float) -> Interval:
    return Interval(value=value, lo=value, hi=value, n=1)


def _lost(figure: Interval, *, layers: int = 1) -> Interval:
    """Returns the losing side of a change in decades, per layer."""
    value, lo, hi = (min(x, 0.0) / layers for x in (figure.value, figure.lo, figure.hi))
    return Interval(value=value, lo=lo, hi=hi, n=figure.n)


def _attenuation(audit: Audit) -> Reading | None:
    figure = audit.flow.attenuation
    return Reading(_lost(figure)) if figure is not None else None


def _growth(audit: Audit) -> Reading | None:
    figure = audit.flow.attenuation
    if figure is None:
        return None
    value, lo, hi = (max(x, 0.0) for x in (figure.value, figure.lo, figure.hi))
    return Reading(Interval(value=value, lo=lo, hi=hi, n=figure.n))


def _per_layer(audit: Audit) -> Reading | None:
    flow = audit.flow
    if flow.attenuation is None or flow.weight_layers < 2:
        return None
    return Reading(_lost(flow.attenuation, layers=flow.weight_layers - 1))


def _worst_step(audit: Audit) -> Reading | None:
    step = audit.flow.worst_step
    if step is None:
        return None
    layer = step.layer or step.name
    return Reading(_lost(step.gain), layer, _source(audit.flow, layer))


def _branch_decay(audit: Audit) -> Reading | None:
    branches = audit.flow.branches
    worst = min(branches, key=lambda branch: branch.decay.value, default=None)
    return Reading(_lost(worst.decay), worst.name) if worst is not None else None


def _recurrence_rate(audit: Audit) -> Reading | None:
    nets = audit.flow.recurrences
    worst = min(nets, key=lambda net: net.rate.value, default=None)
    return Reading(_lost(worst.rate), worst.layer) if worst is not None else None


def _saturated(audit: Audit) -> Reading | None:
    def share(layer: LayerFlow) -> float | None:
        stats = layer.activation
        railed = stats is not None and stats.bounded and not stats.gate
        return stats.saturated if stats is not None and railed else None

    worst = _worst(audit.flow.layers, share)
    if worst is None:
        return None
    layer, value = worst
    samples = layer.activation.samples if layer.activation is not None else 1
    return Reading(_binomial(value, samples), layer.path, layer.source)


def _dead(audit: Audit) -> Reading | None:
    def share(layer: LayerFlow) -> float | None:
        stats = layer.activation
        if stats is None or stats.bounded or stats.units < UNITS_ENOUGH:
            return None
        return stats.dead_fraction

    worst = _worst(audit.flow.layers, share)
    if worst is None:
        return None
    layer, value = worst
    return Reading(_exact(value), layer.path, layer.source)


def _worst(
    layers: Iterable[LayerFlow], share: Callable[[LayerFlow], float | None]
) -> tuple[LayerFlow, float] | None:
    found = [(x, value) for x in layers if (value := share(x)) is not None]
    return max(found, key=lambda pair: pair[1], default=None)


def _binomial(share: float, samples: int) -> Interval:
    """Returns a share with its 95 % interval by Wilson's score, samples as trials.

    Elements of one sample hang together, so samples and not elements count.
    """
    n, z = max(samples, 1), 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    half = z / (1 + z * z / n) * spread
    lo, hi = min(centre - half, share), max(centre + half, share)
    return Interval(value=share, lo=max(lo, 0.0), hi=min(hi, 1.0), n=n)


def _zero_layers(audit: Audit) -> Reading | None:
    still = [x for x in audit.flow.layers if x.weighted and x.zero_gradient]
    place = still[0] if still else None
    value = _exact(float(len(still)))
    return Reading(value, place.path, place.source) if place else Reading(value)


def _disconnected(audit: Audit) -> Reading | None:
    loose = [p for p in audit.flow.parameters if p.trainable and not p.connected]
    return Reading(_exact(float(len(loose))), loose[0].name if loose else "")


def _nonfinite(audit: Audit) -> Reading | None:
    total = sum(p.nonfinite for p in audit.flow.parameters)
    return Reading(_exact(float(total)))


def _precision_lost(audit: Audit) -> Reading | None:
    lost = audit.flow.precision.lost
    return Reading(_exact(lost)) if lost is not None else None


def _variation(audit: Audit) -> Reading | None:
    value = audit.flow.output_variation
    return Reading(_exact(value)) if value is not None else None


def _source(flow: GradientFlow, path: str) -> Source | None:
    return next((x.source for x in flow.layers if x.path == path), None)


_TABLE: tuple[tuple[str, Unit, bool, Callable[[Audit], Reading | None], str], ...] = (
    (
        "attenuation",
        "decades",
        True,
        _attenuation,
        "gradient at the first weight layer of the trunk over the gradient at the "
        "output; 0 where nothing is lost",
    ),
    (
        "growth",
        "decades",
        False,
        _growth,
        "the same where the gradient grows; 0 where it does not",
    ),
    (
        "decades-per-layer",
        "decades",
        True,
        _per_layer,
        "attenuation over the number of weight layers it crosses",
    ),
    (
        "worst-step",
        "decades",
        True,
        _worst_step,
        "the step of the trunk that loses most",
    ),
    (
        "branch-decay",
        "decades",
        True,
        _branch_decay,
        "the most that is lost along one branch",
    ),
    (
        "recurrence-rate",
        "decades",
        True,
        _recurrence_rate,
        "decades per time step of the recurrent layer that forgets fastest",
    ),
    (
        "saturated-share",
        "share",
        False,
        _saturated,
        "saturated elements of the activation that has most; gates aside",
    ),
    (
        "dead-units",
        "share",
        False,
        _dead,
        "dead units of the rectifier that has most, of those with 8 units or more",
    ),
    (
        "zero-gradient-layers",
        "count",
        False,
        _zero_layers,
        "weight layers whose gradient is exactly zero",
    ),
    (
        "disconnected-parameters",
        "count",
        False,
        _disconnected,
        "trainable parameters that no gradient reaches",
    ),
    (
        "nonfinite-gradients",
        "count",
        False,
        _nonfinite,
        "gradient elements that are NaN or infinite",
    ),
    (
        "precision-lost",
        "share",
        False,
        _precision_lost,
        "gradient elements that the model's own type rounds to zero",
    ),
    (
        "output-variation",
        "share",
        True,
        _variation,
        "standard deviation of the output over samples, relative to its size",
    ),
)
METRICS: dict[str, Metric] = {
    name: Metric(name=name, unit=unit, higher=higher, read=read, meaning=meaning)
    for name, unit, higher, read, meaning in _TABLE
}
