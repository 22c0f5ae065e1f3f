"""VG203: the forward signal grows without bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import ActivationFlow, Audit, LayerFlow, Moments
from vgaudit.plain import visible
from vgaudit.rules.examples import activation, chain
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, number, place

_HUGE = Moments(mean=0.0, std=1e7, min=-5e7, max=5e7)
_LARGE = Moments(mean=0.0, std=1e5, min=-5e5, max=5e5)


_SAME, _FAR_BELOW = 1e-2, 0.1


def _exponentials(count: int) -> Audit:
    """Returns the audit of a net of exponentials, whose slope is their output."""
    audit = chain((0.0,) * (count + 1), kind="exp")
    even = Moments(mean=1.5, std=0.5, min=0.5, max=3.0)
    for layer in audit.flow.layers:
        if layer.activation is not None:
            audit = activation(
                audit, layer.path, output=even, slope_mean_square=2.5, slope_max=3.0
            )
    return audit


@dataclass(frozen=True, slots=True)
class ExplodingActivation(Rule):
    """The signal grows by orders of magnitude from the first layers to the last.

    What it measures:
        The root mean square of the input of each activation, against the first one
        of the forward pass; and its standard deviation as it stands. And how many
        exponentials follow on each other along the trunk, with weights alone between.

    Why it matters:
        A forward signal that multiplies with depth ends in infinity in float16, in
        a loss of 10⁶ in float32, and in saturated units wherever a bounded
        activation follows. Exponentials of exponentials need no large weights for it:
        four of them make infinity of an input of 1 (2.7, 15, 3·10⁶, ∞), so that
        whatever training lets them grow ends there. Adam's steps of a fixed size can
        be made small enough for four to learn a little, not for five.

    False alarms:
        A regression whose targets are that large. Exponentials whose weights are
        kept small by a constraint that the scan does not know of.

    Treatments:
        An initialisation with unit gain, normalization, residual branches that are
        scaled down with depth; inputs scaled to unit variance. Exponentials: another
        activation, or a normalization in front of each.

    References:
        He et al. 2015, “Delving deep into rectifiers”; De and Smith 2020, “Batch
        normalization biases residual blocks towards the identity function”.
    """

    growth: float = threshold(1e4, "times the first activation's input; above it")
    std: float = threshold(1e6, "standard deviation of an activation's input; above it")
    tower: int = threshold(
        4, "exponentials on one another; at or above it an error under SGD"
    )
    adam_tower: int = threshold(5, "the same under Adam; from `tower` on a warning")

    code: ClassVar[str] = "VG203"
    name: ClassVar[str] = "exploding-activation"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a hundred thousand times the first",
            activation(chain(kind="relu"), "layers.9", input=_LARGE),
            "warning",
        ),
        Example(
            "ten million at the first activation already",
            activation(chain((-0.3, 0.0), kind="relu"), "layers.1", input=_HUGE),
            "warning",
        ),
        Example("four exponentials on one another", _exponentials(4), "error"),
        Example("the same under Adam", _exponentials(4), "warning", Training("adam")),
        Example("five under Adam", _exponentials(5), "error", Training("adam")),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a signal of even size", chain(kind="relu")),
        Example("a model without activations", chain((0.0,))),
        Example("three exponentials", _exponentials(3)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields a row of exponentials, else the activation with the largest input."""
        tower = _tower(audit.flow.layers)
        if len(tower) >= self.tower:
            yield self._towering(tower, training)
            return
        seen = [
            (x, _rms(x.activation.input)) for x in audit.flow.layers if x.activation
        ]
        start, first = next((pair for pair in seen if pair[1] > 0), (None, 0.0))
        if start is None:
            return
        layer, largest = max(seen, key=lambda pair: _order(pair[1]))
        grown = largest / first
        std = layer.activation.input.std if layer.activation else 0.0
        if grown > self.growth or std > self.std or not math.isfinite(largest):
            between = [
                x
                for x in audit.flow.layers
                if x.weighted and start.order < x.order < layer.order
            ]
            fix = self._way_out(grown, first, layers=len(between))
            yield replace(self._finding(layer, largest, grown), fix=fix)

    def _towering(self, tower: Sequence[LayerFlow], training: Training) -> Finding:
        most = self.adam_tower if training.optimizer == "adam" else self.tower
        fails = len(tower) >= most
        limit = most if fails else self.tower
        first, last = (visible(layer.path) for layer in (tower[0], tower[-1]))
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if fails else "warning",
            layer=place([layer.path for layer in tower]),
            layers=tuple(layer.path for layer in tower),
            message=f"{count(len(tower), 'exponential')} on one another, {first} to "
            f"{last} (limit {limit} under {training.optimizer}): growing weights make "
            "the signal overflow",
            value=len(tower),
            limit=limit,
            unit="exponentials",
            source=tower[0].source,
            fix=self.advice(
                "another activation, or a normalization in front of each exponential",
                "four exponentials make infinity of an input of 1",
            ),
        )

    def _way_out(self, grown: float, first: float, *, layers: int) -> Fix:
        """Returns what to do: the layers multiply the signal, or it comes so large."""
        if grown > self.growth and math.isfinite(grown) and layers:
            each = number(grown ** (1 / layers))
            return self.advice(
                "initialise with unit gain, or normalise in between",
                f"each of {count(layers, 'weight layer')} since the first activation "
                f"multiplies the signal by {each}",
            )
        if not math.isfinite(grown):
            return self.advice(
                "look at the operation in front of this layer",
                f"the first activation is finite ({number(first)}), this one is not",
            )
        return self.advice(
            "scale the input, or the weights of the first layer",
            f"the signal is {number(first)} at the first activation already, and "
            f"grows by {number(grown)} from there",
        )

    def _finding(self, layer: LayerFlow, largest: float, grown: float) -> Finding:
        by_growth = grown > self.growth
        return Finding(
            code=self.code,
            name=self.name,
            level="warning",
            layer=layer.path,
            layers=(layer.path,),
            message=(
                f"the signal reaches a root mean square of {number(largest)} at "
                f"{visible(layer.path)}, {number(grown)} times that of the first "
                "activation"
            ),
            value=grown if by_growth else largest,
            limit=self.growth if by_growth else self.std,
            unit="times" if by_growth else "root mean square",
            source=layer.source,
        )


def _tower(layers: Sequence[LayerFlow]) -> list[LayerFlow]:
    """Returns the longest row of exponentials on the trunk, weights alone between."""
    longest: list[LayerFlow] = []
    row: list[LayerFlow] = []
    for layer in layers:
        if layer.activation is not None and _is_exponential(layer.activation):
            row = [*row, layer] if layer.trunk else row
        elif not layer.weighted:
            row = []
        longest = max(longest, row, key=len)
    return longest


def _is_exponential(seen: ActivationFlow) -> bool:
    """Tells whether the slope is the output, whatever the function is called."""
    slope, output = seen.slope_mean_square, _rms(seen.output) ** 2
    same = math.isclose(slope, output, rel_tol=_SAME)
    steepest = math.isclose(seen.slope_max, seen.output.max, rel_tol=_SAME)
    # Far below zero sigmoids and the softplus look the same.
    return same and steepest and not seen.bounded and seen.output.max > _FAR_BELOW


def _rms(moments: Moments) -> float:
    return math.hypot(moments.mean, moments.std)


def _order(rms: float) -> float:
    return math.inf if math.isnan(rms) else rms
