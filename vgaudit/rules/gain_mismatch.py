"""VG402: weights whose gain does not fit the activations they are fed by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, PlainStretch, StaticLayer
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import stretch
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.treatment import conversion
from vgaudit.rules.wording import count, decades, number, place


@dataclass(frozen=True, slots=True)
class GainMismatch(Rule):
    """The gain of the weights and the slope of the activations do not balance.

    What it measures:
        As VG401, runs of weight layers with neither norm nor skip, and for each the
        decades of ‖δ‖ that the data-free theory predicts. The gain of a layer is
        ‖W‖² per output; the critical gain is 1 / E φ′(z)² of the activation that
        feeds it: 2 for ReLU, 1 for none. It needs `scan --static`.

    Why it matters:
        A layer at gain g behind an activation with critical gain c multiplies ‖δ‖²
        by g/c. PyTorch's default for linear layers and convolutions has g = 1/3,
        where ReLU needs 2: −0.39 decades in every layer, −7.8 in twenty.

    False alarms:
        Trained weights may be far from the gain they began with; aligned ones carry
        more than independent ones of the same size.

    Treatments:
        `torch.nn.init.kaiming_normal_` (ReLU), `xavier_normal_` with the gain of the
        activation, a norm after each layer, or `vgaudit convert --to rescale`.

    References:
        He et al. 2015, “Delving deep into rectifiers”; Poole et al. 2016,
        “Exponential expressivity in deep neural networks through transient chaos”.
    """

    sgd_error: float = threshold(-3.6, "decades; at or below it an error under SGD")
    adam_warning: float = threshold(-3.6, "decades; at or below it a warning for Adam")
    adam_error: float = threshold(-8.3, "decades; at or below it an error under Adam")
    explode: float = threshold(4.0, "decades; at or above it an error under SGD")
    adam_explode: float = threshold(16.0, "decades; at or above it an error under Adam")
    layers: int = threshold(4, "layers from which a stretch is judged")

    code: ClassVar[str] = "VG402"
    name: ClassVar[str] = "gain-mismatch"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101", "VG201")
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "default ReLU layers, twenty of them", stretch(-7.8, layers=20), "error"
        ),
        Example("under Adam a warning", stretch(-7.8), "warning", Training("adam")),
        Example("weights that are too large", stretch(6.0), "error"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("He's initialisation", stretch(-0.1)),
        Example("a stack of sigmoid is VG401", stretch(-9.0, kind="sigmoid")),
        Example("two layers", stretch(-4.0, layers=2)),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each stretch out of balance."""
        static = audit.flow.static
        for run in static.stretches if static is not None else ():
            level = self._level(run.decades, training)
            mostly = 2 * run.saturating >= len(run.layers) - 1 and run.decades < 0
            if level is not None and not mostly and len(run.layers) >= self.layers:
                fix = conversion(
                    audit,
                    "rescale",
                    text="initialise at the critical gain, or rescale the weights",
                    reason=_balance(run),
                )
                yield replace(self._finding(run, level, training), fix=fix)

    def _level(self, change: float, training: Training) -> Level | None:
        sgd = training.optimizer == "sgd"
        low = self.sgd_error if sgd else self.adam_error
        high = self.explode if sgd else self.adam_explode
        if change <= low or change >= high:
            return "error"
        return "warning" if not sgd and change <= self.adam_warning else None

    def _finding(self, run: PlainStretch, level: Level, training: Training) -> Finding:
        paths = tuple(layer.layer for layer in run.layers)
        limit = self._limit(run.decades, level, training)
        size = "large" if run.decades > 0 else "small"
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=place(paths),
            layers=paths,
            message=(
                f"the gains of {count(len(paths), 'weight layer')} without norm or "
                f"skip are too {size}: theory predicts {decades(run.decades)} decades "
                f"from the last to the first (limit {number(limit)})"
            ),
            value=run.decades,
            limit=limit,
            unit="decades",
            evidence=(_typical(run.layers),),
        )

    def _limit(self, change: float, level: Level, training: Training) -> float:
        if change > 0:
            return self.explode if training.optimizer == "sgd" else self.adam_explode
        if training.optimizer == "sgd":
            return self.sgd_error
        return self.adam_error if level == "error" else self.adam_warning


def _ratios(layers: tuple[StaticLayer, ...]) -> list[float]:
    """Returns gain over critical gain behind the first layer, the smallest first."""
    ratios = (layer.gain / layer.critical for layer in layers[1:])
    return sorted(ratio for ratio in ratios if math.isfinite(ratio))


def _balance(run: PlainStretch) -> str:
    """Returns the factor on the weights that balances a typical layer."""
    ratios = _ratios(run.layers)
    middle = ratios[len(ratios) // 2] if ratios else 0.0
    if not middle:
        each = 10 ** (run.decades / max(len(run.layers) - 1, 1))
        return f"each layer passes {number(each)} of the gradient on"
    way, factor = ("larger", middle**-0.5) if middle < 1 else ("smaller", middle**0.5)
    return f"weights {number(factor)} times {way} balance a typical layer"


def _typical(layers: tuple[StaticLayer, ...]) -> str:
    ratios = _ratios(layers)
    if not ratios:
        return "no layer has a critical gain"
    middle = ratios[len(ratios) // 2]
    return (
        f"the gain of a typical layer is {number(middle)} of the critical one "
        f"({number(ratios[0])} to {number(ratios[-1])})"
    )
