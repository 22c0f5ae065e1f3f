"""VG102: every layer loses a little, so depth will lose everything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, GradientFlow
from vgaudit.rules.budget import sentence
from vgaudit.rules.examples import HEALTHY, chain, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.treatment import against_loss
from vgaudit.rules.wording import decades


def _recurrent(audit: Audit) -> Audit:
    steps = (replace(step, cause="recurrence") for step in audit.flow.trunk)
    return having(audit, trunk=tuple(steps))


def _through_time(flow: GradientFlow) -> bool:
    """Returns whether recurrent kernels make most of what the trunk loses."""
    losses = {cause: min(gain, 0.0) for cause, gain in flow.budget().items()}
    return losses.get("recurrence", 0.0) < 0.5 * sum(losses.values())


@dataclass(frozen=True, slots=True)
class VanishingDecay(Rule):
    """Each weight layer loses gradient at a steady rate that depth multiplies.

    What it measures:
        The attenuation of the trunk divided by the number of weight layers it
        crosses, in decades per layer, where no single step carries most of it.

    Why it matters:
        The net still trains, but its rate of decay is that of nets that do not:
        at −0.3 decades per layer, ten more layers cost a factor of a thousand.

    False alarms:
        A short net that stays short. Where the gradient is lost already, VG101
        says so and this rule is quiet; and where recurrent kernels make most of
        the loss, whose gradient is a matter of time and not of depth (VG108).

    Treatments:
        Before adding depth: an initialisation whose gain fits the activation
        (`torch.nn.init.calculate_gain`), normalization, or skip connections.

    References:
        Schoenholz et al. 2017, “Deep information propagation” (depth scale
        ξ = −1/ln χ₁); He et al. 2015, “Delving deep into rectifiers”.
    """

    per_layer: float = threshold(-0.3, "decades per weight layer; at or below it")
    layers: int = threshold(4, "weight layers from which a rate is judged")
    steady: float = threshold(0.5, "largest share of the loss that one step may carry")

    code: ClassVar[str] = "VG102"
    name: ClassVar[str] = "vanishing-decay"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "0.5 decades a layer", chain((-2.5, -2.0, -1.5, -1.0, -0.5, 0.0)), "warning"
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a net that trains", chain(HEALTHY)),
        Example("three layers", chain((-2.0, -1.0, 0.0))),
        Example("one step loses it all", chain((-2.5, -2.5, -2.5, -2.5, 0.0, 0.0))),
        Example("no path was found", having(chain(), attenuation=None)),
        Example("recurrent layers", _recurrent(chain((-2.5, -2.0, -1.0, -0.5, 0.0)))),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the trunk."""
        flow = audit.flow
        rate = flow.decades_per_layer
        if flow.attenuation is None or rate is None or not math.isfinite(rate):
            return
        surely = flow.attenuation.hi / (flow.weight_layers - 1)
        if (
            flow.weight_layers < self.layers
            or surely > self.per_layer
            or not self._steady(flow)
            or _through_time(flow)
        ):
            return
        per_layer = f"{rate:.2f}".replace("-", "−")
        more = f"{10 * -rate:.0f}"
        budget = sentence(flow)
        yield Finding(
            code=self.code,
            name=self.name,
            level="warning",
            message=(
                f"the gradient loses {per_layer.lstrip('−')} decades per weight layer, "
                f"steadily ({decades(flow.attenuation.value)} over "
                f"{flow.weight_layers} layers); ten more layers would lose {more} more"
            ),
            value=rate,
            limit=self.per_layer,
            unit="decades per layer",
            evidence=(f"where it went: {budget}",) if budget else (),
            fix=against_loss(audit, flow.trunk, self.code),
        )

    def _steady(self, flow: GradientFlow) -> bool:
        losses = [-step.gain.value for step in flow.trunk if step.gain.value < 0]
        return bool(losses) and max(losses) <= self.steady * sum(losses)
