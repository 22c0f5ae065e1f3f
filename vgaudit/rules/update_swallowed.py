"""VG602: steps that bfloat16 weights are too coarse to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import deep, steps, trained
from vgaudit.rules.first_steps import first_steps, share
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import names, number, percent, place


@dataclass(frozen=True, slots=True)
class UpdateSwallowed(Rule):
    """Weights stored in bfloat16 stay where they are: the step is rounded away.

    What it measures:
        For a model in bfloat16, the share of all elements of its weights whose first
        step is not 0 and leaves the stored number as it was: w rounded to bfloat16,
        the step taken in float32, the result rounded again. It needs `scan --deep`
        and a loss.

    Why it matters:
        bfloat16 has eight bits: next to 1 it knows 1.0078 and nothing between. A
        step of less than half of that is lost, in every iteration, and the gradient
        looks healthy while nothing is learned.

    False alarms:
        Training with float32 copies of the weights (`torch.autocast`, master
        weights) rounds only the copy; stochastic rounding keeps steps on average.

    Treatments:
        float32 weights with autocast; master weights; stochastic rounding; Kahan
        summation in the optimizer.

    References:
        Zamirai et al. 2020, “Revisiting bfloat16 training”; Micikevicius et al.
        2018, “Mixed precision training”.
    """

    warning: float = threshold(0.5, "share of steps lost; at or above it a warning")
    error: float = threshold(0.95, "share of steps lost; at or above it an error")

    code: ClassVar[str] = "VG602"
    name: ClassVar[str] = "update-swallowed"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "nothing arrives in bfloat16",
            trained(deep(precision=steps(swallowed=0.99)), dtype="bfloat16"),
            "error",
        ),
        Example(
            "three steps in five are lost",
            trained(deep(precision=steps(swallowed=0.6)), dtype="bfloat16"),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example(
            "the same weights in float32",
            trained(deep(precision=steps(swallowed=0.99))),
        ),
        Example(
            "a few steps in bfloat16",
            trained(deep(precision=steps(swallowed=0.1)), dtype="bfloat16"),
        ),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model."""
        if audit.flow.precision.dtype != "bfloat16":
            return
        known = list(first_steps(audit, training.optimizer))
        lost = share(known, "swallowed")
        if lost < self.warning:
            return
        severe = lost >= self.error
        worst = [s for s in known if s.update.swallowed >= self.warning]
        layers = tuple(dict.fromkeys(step.layer for step in worst))
        rate = known[0].update.learning_rate
        yield Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            layer=place(layers),
            layers=layers,
            message=(
                f"{percent(lost)} of the first steps of {training.optimizer} (learning "
                f"rate {number(rate)}) do not change the bfloat16 weights: "
                f"{names([s.name for s in worst])}"
            ),
            value=lost,
            limit=self.error if severe else self.warning,
            unit="share",
            fix=self.advice(
                "keep the weights in float32 and compute in bfloat16 (autocast)",
                "bfloat16 rounds away steps below 1/512 of a weight, and "
                f"{percent(lost)} of them are that small",
            ),
        )
