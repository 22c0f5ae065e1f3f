"""VG601: a first step that is too large or too small for its weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import deep, steps, trained
from vgaudit.rules.first_steps import FirstStep, first_steps
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, names, number, place


@dataclass(frozen=True, slots=True)
class UpdateRatio(Rule):
    """The optimizer's first step is out of proportion to the weight it changes.

    What it measures:
        ‖step‖ / ‖weight‖ of every weight with two dimensions or more, for the
        optimizer that will train (`--optimizer`): SGD at a learning rate of 0.01,
        Adam at 0.001, without momentum or decay. It needs `scan --deep`, real data
        and a loss, since cotangents have no size of their own.

    Why it matters:
        A healthy step changes a weight by about one part in a thousand. One that is
        as large as the weight throws away what was learned; one below the precision
        of the numbers changes nothing.

    False alarms:
        The learning rate is yours: SGD's ratio scales with it, and a schedule or
        warm-up begins lower. Weights that begin near zero take large steps at first.

    Treatments:
        Another learning rate; a group of its own for the weights named; gradient
        clipping; an optimizer with a step per layer.

    References:
        You, Gitman and Ginsburg 2017, “Large batch training of convolutional
        networks”; Bernstein et al. 2020, “On the distance between two neural
        networks and the stability of learning”.
    """

    high: float = threshold(1.0, "step over weight; at or above it a warning")
    low: float = threshold(3e-8, "step over weight; at or below it a warning")

    code: ClassVar[str] = "VG601"
    name: ClassVar[str] = "update-ratio"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101", "VG201")
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "steps larger than the weights",
            trained(deep(precision=steps(ratio=4.0))),
            "warning",
        ),
        Example(
            "steps that float32 rounds away",
            trained(deep(precision=steps(ratio=1e-9))),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("one part in a thousand", trained(deep(precision=steps()))),
        Example("random cotangents have no size", deep(precision=steps(ratio=4.0))),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the steps that are too large, one for too small."""
        known = [
            step
            for step in first_steps(audit, training.optimizer)
            if step.update.ratio is not None
        ]
        large = [step for step in known if _ratio(step) >= self.high]
        small = [step for step in known if 0 < _ratio(step) <= self.low]
        if large:
            yield self._finding(large, self.high, max(map(_ratio, large)), "more")
        if small:
            yield self._finding(small, self.low, min(map(_ratio, small)), "less")

    def _finding(
        self, found: list[FirstStep], limit: float, worst: float, what: str
    ) -> Finding:
        layers = tuple(dict.fromkeys(step.layer for step in found))
        rate = found[0].update.learning_rate
        named = found[0].update.optimizer.upper().replace("ADAM", "Adam")
        return Finding(
            code=self.code,
            name=self.name,
            level="warning",
            layer=place(layers),
            layers=layers,
            message=(
                f"{named}'s first step at a learning rate of {number(rate)} changes "
                f"{count(len(found), 'weight')} by {what} than {number(limit)} of "
                f"itself, {number(worst)} at worst: {names([s.name for s in found])}"
            ),
            value=worst,
            limit=limit,
            unit="step / weight",
            fix=self.advice(
                "another learning rate, for these weights at least",
                f"{number(rate * limit / worst)} brings the worst of them to "
                f"{number(limit)} of itself",
            ),
        )


def _ratio(step: FirstStep) -> float:
    return step.update.ratio or 0.0
