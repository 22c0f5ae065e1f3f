"""VG201: the gradient grows on its way to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix, Level
from vgaudit.flow import Audit, GradientFlow, Interval
from vgaudit.plain import visible
from vgaudit.rules.examples import chain, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import decades, number, span


@dataclass(frozen=True, slots=True)
class ExplodingGradient(Rule):
    """The gradient is far larger at the first layers than at the output.

    What it measures:
        The same transport as VG101, in the other direction: log₁₀(‖δ‖ at the output
        of the deepest weight layer / ‖δ‖ at the output of the network), in decades.

    Why it matters:
        One learning rate serves all layers. Small enough for the first ones, it is
        ten thousand times too small for the last; large enough for the last, the
        first ones diverge. Adam divides by the gradient's size and bears far more.

    False alarms:
        A trained model with a very small output scale, whose gradient at the output
        is small by comparison.

    Treatments:
        An initialisation with less gain, normalization, gradient clipping for the
        first steps, or a residual branch that is scaled down with depth.

    References:
        Pascanu, Mikolov and Bengio 2013, “On the difficulty of training recurrent
        neural networks”; Zhang, Dauphin and Ma 2019, “Fixup initialization”.
    """

    warning: float = threshold(3.5, "decades; at or above it a warning")
    error: float = threshold(3.65, "decades; at or above it an error under SGD")
    adam_error: float = threshold(16.0, "decades; at or above it an error under Adam")
    adam_residual_error: float = threshold(
        4.4, "decades; the same where blocks with skips make most of the growth"
    )

    code: ClassVar[str] = "VG201"
    name: ClassVar[str] = "exploding-gradient"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("five decades", chain((5.0, 4.0, 3.0, 1.5, 0.0)), "error"),
        Example("three and a half decades", chain((3.6, 2.5, 1.5, 0.0)), "warning"),
        Example(
            "five decades under Adam",
            chain((5.0, 4.0, 3.0, 1.5, 0.0)),
            "warning",
            Training("adam"),
        ),
        Example(
            "twenty decades under Adam",
            chain((20.0, 15.0, 10.0, 5.0, 0.0)),
            "error",
            Training("adam"),
        ),
        Example(
            "an interval across the limit is unclear",
            chain((3.6, 2.0, 1.0, 0.0), spread=0.3),
            "info",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a net that trains", chain()),
        Example("two decades", chain((2.0, 1.0, 0.0))),
        Example("no path was found", having(chain(), attenuation=None)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the trunk."""
        grown = audit.flow.attenuation
        if grown is None:
            return
        verdict = self._verdict(grown, self._error(audit.flow, training))
        if verdict is None:
            return
        level, limit, unclear = verdict
        first = next((x for x in audit.flow.layers if x.weighted and x.trunk), None)
        path = first.path if first else ""
        where = visible(path) or "the first layer"
        yield Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=path,
            layers=(path,) if path else (),
            message=f"unclear: {span(grown)} decades reach across the limit of "
            f"{number(limit)}; more batches would narrow it"
            if unclear
            else f"the gradient grows by {decades(grown.value)} decades between the "
            f"output and {where} (limit {number(limit)})",
            value=grown.value,
            limit=limit,
            unit="decades",
            unclear=unclear,
            fix=Fix(
                command="vgaudit explain VG201",
                text="initialise with less gain, or normalise",
            ),
            source=first.source if first else None,
        )

    def _error(self, flow: GradientFlow, training: Training) -> float:
        if training.optimizer == "sgd":
            return self.error
        growing = {c: value for c, value in flow.budget().items() if value > 0}
        residual = growing.get("branches", 0.0) > 0.5 * sum(growing.values())
        return self.adam_residual_error if residual else self.adam_error

    def _verdict(
        self, grown: Interval, error: float
    ) -> tuple[Level, float, bool] | None:
        if grown.lo >= error:
            return "error", error, False
        if grown.lo >= self.warning:
            return "warning", self.warning, False
        if grown.hi >= self.warning:
            return "info", self.warning, True
        return None
