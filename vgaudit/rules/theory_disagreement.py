"""VG605: a gradient that travels otherwise than theory predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, TheoryFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import theory
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, decades, number


@dataclass(frozen=True, slots=True)
class TheoryDisagreement(Rule):
    """Measurement and mean-field theory disagree on the gradient's way.

    What it measures:
        The decades of ‖δ‖ along the trunk as predicted from the weights and the
        measured slopes and deviations, each operation by the mean square of its
        derivative, against those measured in the same backward pass. What chance
        explains in a net of this width and depth (the spread) is added to the limit
        three times. It needs `scan --deep`.

    Why it matters:
        The theory takes weights, slopes and gradient to be independent. Where it is
        far off, they are not: units that are dead for all inputs, weights that
        training aligned with the gradient, a mask, a bug. The defect then lies in
        how the layers fit together and not in any one's size.

    False alarms:
        Trained networks are aligned, mostly to carry more than predicted; averages
        over space or tokens whose gradients are alike. Therefore a disagreement is
        information until it is large.

    Treatments:
        Look at the layer where prediction and measurement part (`--report json`,
        `deep.theory.layers`), and at its activation first.

    References:
        Poole et al. 2016; Schoenholz et al. 2017, “Deep information propagation”;
        Hanin and Nica 2020, “Products of many large random matrices and gradients in
        deep neural networks”.
    """

    info: float = threshold(1.0, "decades apart, beyond three spreads; information")
    warning: float = threshold(3.0, "decades apart, beyond three spreads; a warning")

    code: ClassVar[str] = "VG605"
    name: ClassVar[str] = "theory-disagreement"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("two decades apart", theory(-1.0, -3.0), "info"),
        Example("six decades apart", theory(-1.0, -7.0), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("half a decade apart", theory(-4.0, -4.5)),
        Example(
            "within the spread of a narrow, deep net", theory(-9.0, -11.0, spread=0.5)
        ),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model."""
        deep = audit.flow.deep
        found = deep.theory if deep is not None else None
        if found is None:
            return
        beyond = found.disagreement - 3 * found.spread
        if beyond >= self.info:
            yield self._finding(found, severe=beyond >= self.warning)

    def _finding(self, found: TheoryFlow, *, severe: bool) -> Finding:
        apart = found.disagreement
        which = "less" if found.measured < found.predicted else "more"
        limit = self.warning if severe else self.info
        steps = f"{count(found.covered, 'step')} of {found.steps:,}"
        parting, there = _parting(found)
        return Finding(
            code=self.code,
            name=self.name,
            level="warning" if severe else "info",
            layer=parting,
            layers=(parting,) if parting else (),
            message=(
                f"{decades(apart)} decades {which} gradient than theory predicts: "
                f"{decades(found.measured)} measured, {decades(found.predicted)} ± "
                f"{found.spread:.2f} predicted (limit {number(limit)})"
            ),
            value=apart,
            limit=limit,
            unit="decades",
            evidence=(f"the theory covers {steps} of the trunk",),
            fix=self.advice(
                f"look at {visible(parting)}, for dead units, alignment or a bug",
                f"{decades(there)} of the {decades(apart)} decades part across it",
            )
            if parting
            else self.advice(
                "look at the layers of the theory in the JSON report",
                f"none of its {count(found.covered, 'step')} was measured",
            ),
        )


def _parting(found: TheoryFlow) -> tuple[str, float]:
    """Returns the step across which theory and measurement part most, and by what."""
    worst, place, above = 0.0, "", 0.0
    for layer in reversed(found.layers):
        if layer.measured is None:
            continue
        here = layer.predicted - layer.measured
        if abs(here - above) > worst:
            worst, place = abs(here - above), layer.layer
        above = here
    return place, worst
