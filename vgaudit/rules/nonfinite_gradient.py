"""VG107: gradients that are not numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import Audit, GradientFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import around, chain, having, parameter
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, number, place


@dataclass(frozen=True, slots=True)
class NonfiniteGradient(Rule):
    """A gradient holds NaN or infinity.

    What it measures:
        Parameter gradients that are NaN or infinite in any batch, and the layer
        among them nearest the output: the backward pass meets that one first.

    Why it matters:
        One optimizer step writes them into the weights, and the model is lost.

    False alarms:
        With float16 and no loss scaler an overflow may be one of the scan alone.

    Treatments:
        Look at the operation just above the named layer: a square root or a norm
        at zero, a logarithm of zero, a division, an exponential; add the ε inside
        and not outside. Clip gradients. Train in bfloat16 or float32.

    References:
        PyTorch documentation, `torch.autograd.set_detect_anomaly`.
    """

    code: ClassVar[str] = "VG107"
    name: ClassVar[str] = "non-finite-gradient"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "NaN in one kernel's gradient",
            parameter(chain(), "layers.4.weight", nonfinite=3),
            "error",
        ),
        Example(
            "the transport itself is NaN",
            having(chain(), attenuation=around(math.nan)),
            "error",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (Example("finite gradients", chain()),)

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for all such gradients."""
        bad = [p for p in audit.flow.parameters if p.nonfinite]
        lost = audit.flow.attenuation
        if not bad and (lost is None or not math.isnan(lost.value)):
            return
        layers = tuple(dict.fromkeys(p.name.rpartition(".")[0] or p.name for p in bad))
        elements = sum(p.nonfinite for p in bad)
        where = f", first at {visible(layers[-1])} on the way back" if layers else ""
        yield Finding(
            code=self.code,
            name=self.name,
            level="error",
            layer=place(layers),
            layers=layers,
            message=(
                f"{count(elements, 'gradient element')} of "
                f"{count(len(bad), 'parameter')} are NaN or infinite{where}"
                if bad
                else "the gradient along the trunk is NaN"
            ),
            value=float(elements),
            limit=0.0,
            unit="elements",
            fix=self._way_out(audit.flow, layers),
        )

    def _way_out(self, flow: GradientFlow, layers: tuple[str, ...]) -> Fix:
        """Returns where to look: the loss, an infinite signal, or the first layer."""
        if flow.loss is not None and flow.loss.nonfinite:
            return self.advice(
                "mend the loss first",
                f"it is NaN or infinite itself in "
                f"{count(flow.loss.nonfinite, 'batch')}",
            )
        for row in flow.layers:
            seen = row.activation
            if seen is not None and not math.isfinite(seen.input.mean + seen.input.std):
                return self.advice(
                    f"look in front of {visible(row.path)}",
                    "its input is not finite in the forward pass already: mean "
                    f"{number(seen.input.mean)}, deviation {number(seen.input.std)}",
                )
        if not layers:
            return self.advice(
                "look at the operations of the trunk",
                f"the gradients of {count(len(flow.parameters), 'parameter')} are "
                "finite, and the trunk's is not",
            )
        return self.advice(
            "look at the operation right above: a square root, logarithm or division "
            "by what can be 0",
            f"the forward pass is finite, and {visible(layers[-1])} is the first of "
            f"{count(len(layers), 'layer')} on the way back that is not",
        )
