"""VG302: units that no sample ever switches on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix, Level
from vgaudit.flow import ActivationFlow, Audit, LayerFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import activation, chain, fed
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import number, percent


def _dead(
    units: int, dead: int, *, kind: str = "relu", real: bool = False, samples: int = 64
) -> Audit:
    audit = activation(
        chain(kind=kind),
        "layers.5",
        units=units,
        dead_units=dead,
        samples=samples,
        dead_bound=min(1.0, 3 / samples),
    )
    return fed(audit, kind="real", spec="imagefolder:photos") if real else audit


@dataclass(frozen=True, slots=True)
class DeadUnits(Rule):
    """Units of a rectifier have no slope for any sample.

    What it measures:
        Units (features or channels) whose slope φ′(z) was zero in every position of
        every sample of every batch. A unit that was never active in n samples is
        active with probability at most 3/n (rule of three, 95 % confidence); the
        message gives that bound. Activations with two rails are VG301's.

    Why it matters:
        A dead unit gets no gradient and gives none: it does not come back by
        itself, and the layer is narrower than it looks.

    False alarms:
        Units for rare classes are dead on few samples, and synthetic inputs need not
        reach what real ones do: without real data the limits are higher and the
        finding is about nearly whole layers only. With few samples a dead unit may
        just be a rare one: then only a layer without any living unit is reported.

    Treatments:
        A leaky activation; a smaller learning rate and a less negative bias;
        normalization before the activation.

    References:
        Maas, Hannun and Ng 2013, “Rectifier nonlinearities improve neural network
        acoustic models”; Lu et al. 2020, “Dying ReLU and initialization”; Hanley and
        Lippman-Hand 1983, “If nothing goes wrong, is everything all right?”.
    """

    synthetic_warning: float = threshold(0.8, "share of units; at or above it")
    synthetic_error: float = threshold(0.95, "share of units; at or above it")
    real_warning: float = threshold(0.5, "share of units on real data; at or above it")
    real_error: float = threshold(0.9, "share of units on real data; at or above it")
    units: int = threshold(8, "units from which a share means something")
    bound: float = threshold(
        0.25, "confidence bound; above it only a wholly dead layer counts"
    )

    code: ClassVar[str] = "VG302"
    name: ClassVar[str] = "dead-units"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a dead layer", _dead(64, 64), "error"),
        Example("a dead layer in four samples", _dead(64, 64, samples=4), "error"),
        Example("nine tenths on synthetic data", _dead(64, 58), "warning"),
        Example("nine tenths on real data", _dead(64, 58, real=True), "error"),
        Example("half on real data", _dead(64, 32, real=True), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("all alive", chain(kind="relu")),
        Example("half on synthetic data", _dead(64, 32)),
        Example("four units", _dead(4, 4)),
        Example("most of a layer in four samples", _dead(64, 58, samples=4)),
        Example("units could not be told", _dead(0, 0)),
        Example("a sigmoid is VG301's", _dead(64, 64, kind="sigmoid")),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each activation call with too many dead units."""
        real = audit.data.kind == "real"
        for layer in audit.flow.layers:
            stats = layer.activation
            if stats is None or stats.bounded or stats.units < self.units:
                continue
            verdict = self._verdict(stats, real)
            if verdict is not None:
                yield self._finding(layer, stats, *verdict)

    def _verdict(self, stats: ActivationFlow, real: bool) -> tuple[Level, float] | None:
        error = self.real_error if real else self.synthetic_error
        warning = self.real_warning if real else self.synthetic_warning
        if stats.dead_bound > self.bound and stats.dead_units < stats.units:
            return None
        if stats.dead_fraction >= error:
            return "error", error
        if stats.dead_fraction >= warning:
            return "warning", warning
        return None

    def _finding(
        self, layer: LayerFlow, stats: ActivationFlow, level: Level, limit: float
    ) -> Finding:
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=layer.path,
            layers=(layer.path,),
            message=(
                f"{stats.dead_units:,} of {stats.units:,} {stats.kind} units of "
                f"{visible(layer.path)} had no slope in any of {stats.samples:,} "
                f"samples (such a unit is active in at most "
                f"{percent(stats.dead_bound)} of all samples, 95 % confidence)"
            ),
            value=stats.dead_fraction,
            limit=limit,
            unit="share",
            fix=self._way_out(stats),
            source=layer.source,
        )

    def _way_out(self, stats: ActivationFlow) -> Fix:
        """Returns what to do: the input lies off the slope, or some weights are."""
        mean, std = stats.input.mean, stats.input.std
        seen = f"mean {number(mean)} at a deviation of {number(std)}"
        if mean < -std:
            return self.advice(
                "a less negative bias, or normalization before the activation",
                f"its input lies below 0 as a whole ({seen})",
            )
        return self.advice(
            "a leaky activation, or new weights for the dead units",
            f"its input does not lie below 0 as a whole ({seen}): these units' own "
            "weights are at fault",
        )
