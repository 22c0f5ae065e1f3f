"""VG201: the gradient grows on its way to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, GradientFlow, Interval
from vgaudit.plain import visible
from vgaudit.rules import nets
from vgaudit.rules.examples import chain, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.treatment import against_growth
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
        first ones diverge. A net of ReLUs whose every layer multiplies starts with
        outputs in the thousands: its first steps push units below zero for good.
        Adam divides by the gradient's size and bears far more, unless the units have
        rails: there growth is no matter of scale but chaos, and a step of a thousandth
        changes every answer.

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
    relu_error: float = threshold(
        1.7, "decades; the same under SGD for ReLUs, where each layer multiplies"
    )
    relu_layer: float = threshold(
        0.5, "decades a weight layer; at or above it each layer multiplies"
    )
    adam_error: float = threshold(13.0, "decades; at or above it an error under Adam")
    adam_railed_error: float = threshold(
        2.6, "decades; the same where most units have two rails (tanh, sigmoid)"
    )
    adam_residual_error: float = threshold(
        3.7, "decades; the same where blocks with skips make most of the growth"
    )

    code: ClassVar[str] = "VG201"
    name: ClassVar[str] = "exploding-gradient"
    # Of the batches, those that overflow are the ones with the largest gradients:
    # what the others say is no measure of the net.
    implied_by: ClassVar[tuple[str, ...]] = ("VG107",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("five decades", chain((5.0, 4.0, 3.0, 1.5, 0.0)), "error"),
        Example("three and a half decades", chain((3.6, 2.5, 1.5, 0.0)), "warning"),
        Example(
            "five decades under Adam",
            chain((5.0, 4.0, 3.0, 1.5, 0.0), kind="relu"),
            "warning",
            Training("adam"),
        ),
        Example(
            "twenty decades under Adam",
            chain((20.0, 15.0, 10.0, 5.0, 0.0), kind="relu"),
            "error",
            Training("adam"),
        ),
        Example(
            "three decades of units with rails under Adam",
            chain((3.0, 2.0, 1.0, 0.0)),
            "error",
            Training("adam"),
        ),
        Example(
            "ReLU layers that multiply by five each",
            chain((2.1, 1.4, 0.7, 0.0), kind="relu"),
            "error",
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
        Example(
            "two decades of ReLUs over many layers",
            chain((2.1, 1.8, 1.5, 1.2, 0.8, 0.4, 0.0), kind="relu"),
        ),
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
            fix=against_growth(audit, audit.flow.trunk, self.code),
            source=first.source if first else None,
        )

    def limits(
        self, flow: GradientFlow, training: Training
    ) -> tuple[tuple[Level, float], ...]:
        """Returns the limits on the trunk of a net of this kind, error first."""
        error = self._error(flow, training)
        return ("error", error), ("warning", self.warning)

    def _error(self, flow: GradientFlow, training: Training) -> float:
        if training.optimizer == "sgd":
            rate = flow.decades_per_layer or 0.0
            dying = nets.one_sided(flow) and rate >= self.relu_layer
            return min(self.relu_error, self.error) if dying else self.error
        if nets.railed(flow):
            return self.adam_railed_error
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
