"""VG106: gradients that the number format rounds to zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import Audit, Precision
from vgaudit.rules.examples import chain, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import decades, percent


def _half(lost: float) -> Audit:
    return having(
        chain(),
        precision=Precision(
            dtype="float16",
            measured="float32",
            reason="gradients underflow in float16",
            lost=lost,
            own_attenuation=-7.0,
        ),
    )


@dataclass(frozen=True, slots=True)
class PrecisionUnderflow(Rule):
    """Gradients are lost to the number format, not to the network.

    What it measures:
        The share of parameter gradient elements that are exactly zero in the
        model's own floating-point type and not zero where the same backward pass
        was measured again in a wider one.

    Why it matters:
        float16 has no number below 6·10⁻⁸. A gradient that is small everywhere,
        because the loss is small or the batch is large, vanishes there although the
        network transports it well; in the wider type the attenuation is healthy.

    False alarms:
        With a loss scaler in the training loop the gradients are multiplied before
        they are rounded; the scan does not know of it.

    Treatments:
        bfloat16, whose range is that of float32; or a loss scaler
        (`torch.amp.GradScaler`) for float16.

    References:
        Micikevicius et al. 2018, “Mixed precision training”.
    """

    warning: float = threshold(0.01, "share of gradient elements lost; at or above it")
    error: float = threshold(0.25, "share of gradient elements lost; at or above it")

    code: ClassVar[str] = "VG106"
    name: ClassVar[str] = "precision-underflow"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("half of the gradient is lost in float16", _half(0.5), "error"),
        Example("a few percent are lost in float16", _half(0.04), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("float32 as it is", chain()),
        Example("a few elements in a thousand", _half(0.001)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model."""
        precision = audit.flow.precision
        if precision.lost is None or precision.lost < self.warning:
            return
        severe = precision.lost >= self.error
        own = precision.own_attenuation
        seen = "" if own is None else f", which reads as {decades(own)} decades"
        yield Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            message=(
                f"{percent(precision.lost)} of the gradient underflows to 0 in "
                f"{precision.dtype}{seen}; in {precision.measured} it is there"
            ),
            value=precision.lost,
            limit=self.error if severe else self.warning,
            unit="share",
            evidence=(precision.reason,) if precision.reason else (),
            fix=self._way_out(audit, precision),
        )

    def _way_out(self, audit: Audit, precision: Precision) -> Fix:
        """Returns what to do: by the loss scale, where a deep scan knows it."""
        lost = percent(precision.lost or 0.0)
        if precision.dtype != "float16":
            return self.advice(
                "treat what makes the gradient so small: no scale is missing",
                f"{precision.dtype} has the range of float32, and {lost} lie below it",
            )
        deep = audit.flow.deep
        if deep is None or not deep.precision or audit.flow.probe != "loss":
            return self.advice(
                "train in bfloat16, or with a loss scaler",
                f"{lost} lie below 3e-8, half of float16's smallest number",
            )
        scales = [figures.loss_scale for figures in deep.precision]
        known = [scale for scale in scales if scale is not None]
        if len(known) < len(scales):
            return self.advice(
                "train in bfloat16",
                "no loss scale saves every parameter in float16: "
                f"{len(scales) - len(known):,} of {len(scales):,} overflow before",
            )
        return self.advice(
            "train with a loss scaler, or in bfloat16",
            f"a loss scale of {max(known):,.0f} saves it in float16",
        )
