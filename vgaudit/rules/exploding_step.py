"""VG202: one step multiplies the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, TrunkStep
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.treatment import against_growth
from vgaudit.rules.wording import decades, number


@dataclass(frozen=True, slots=True)
class ExplodingStep(Rule):
    """A single step of the trunk multiplies the gradient by hundreds.

    What it measures:
        The gain of each step between two neighbouring tensors of the trunk,
        log₁₀(‖δ after‖ / ‖δ before‖), in decades.

    Why it matters:
        One layer with such a gain decides the learning rate of the whole model,
        also where a loss elsewhere hides it from the sum over the depth. It is often
        a weight of the wrong scale or a division by a small number.

    False alarms:
        A step over a whole block with branches that the trunk cannot look into.

    Treatments:
        Initialise the named layer with less gain; put the ε of a norm inside the
        root; divide attention logits by √d.

    References:
        Pascanu, Mikolov and Bengio 2013, “On the difficulty of training recurrent
        neural networks”.
    """

    gain: float = threshold(2.5, "decades gained in one step; at or above it")
    error: float = threshold(6.0, "decades gained in one step; at or above it an error")

    code: ClassVar[str] = "VG202"
    name: ClassVar[str] = "exploding-step"
    implied_by: ClassVar[tuple[str, ...]] = ("VG107",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("one layer multiplies by 10⁵", chain((5.0, 5.0, 0.0, 0.0)), "warning"),
        Example("one layer multiplies by 10⁸", chain((14.0, 14.0, 0.0)), "error"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a net that trains", chain()),
        Example("five decades over many steps", chain((5.0, 3.8, 2.5, 1.2, 0.0))),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each such step."""
        for step in audit.flow.trunk:
            if step.gain.lo >= self.gain:
                fix = against_growth(audit, (step,), self.code)
                yield replace(self._finding(step), fix=fix)

    def _finding(self, step: TrunkStep) -> Finding:
        where = step.layer or step.name
        severe = step.gain.lo >= self.error
        limit = self.error if severe else self.gain
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            layer=where,
            layers=(step.layer,) if step.layer else (),
            message=(
                f"the gradient grows by {decades(step.gain.value)} decades in one "
                f"step, {visible(where)} (limit {number(limit)})"
            ),
            value=step.gain.value,
            limit=limit,
            unit="decades",
        )
