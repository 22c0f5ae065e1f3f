"""VG606: outputs that are the same for every input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, GradientFlow, StreamPoint
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import stream
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import decades, number

_COLLAPSED = stream(0.9, 0.1, 1e-3, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class ForwardCollapse(Rule):
    """The forward signal is lost: a layer gives the same output for all inputs.

    What it measures:
        Along the trunk, ‖X − mean over samples‖ / ‖X‖ of every module's output. The
        finding names the first place below the limit, and says whether the gradient
        is lost as well. It needs `scan --deep` and two samples or more.

    Why it matters:
        A network that does not tell its inputs apart can learn a constant and no
        more. In saturating nets it comes together with a vanishing gradient; in
        ReLU nets at the critical gain, and behind norms of the wrong place, the
        gradient travels well and the signal is gone all the same. Treatments differ:
        a larger step, an optimizer per layer or Adam help against a small gradient
        and not against this.

    False alarms:
        Batches of nearly equal samples: the rule wants inputs that differ in the
        first layer. An output that begins with a large constant bias.

    Treatments:
        A norm over the batch (which keeps samples apart), weights at the critical
        gain, a smaller bias, skips, an activation that is shaped to keep
        correlations (leaky ReLU with a larger slope, tanh near zero).

    References:
        Poole et al. 2016; Schoenholz et al. 2017 (correlation of two inputs);
        Martens et al. 2021, “Rapid training of deep neural networks without skip
        connections or normalization layers using deep kernel shaping”.
    """

    warning: float = threshold(1e-3, "relative spread over samples; below it")
    error: float = threshold(1e-4, "relative spread over samples; below it")
    apart: float = threshold(0.01, "spread from which the inputs count as different")
    lost: float = threshold(-3.6, "decades from which the gradient counts as lost too")

    code: ClassVar[str] = "VG606"
    name: ClassVar[str] = "forward-collapse"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("the signal falls by ten in every layer", _COLLAPSED, "error"),
        Example("a thousandth is left", stream(0.9, 0.05, 9e-4), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a signal that lives", stream(0.9, 0.7, 0.6)),
        Example("a few percent, as in default VGG", stream(0.7, 0.2, 0.06)),
        Example("samples that are alike from the start", stream(1e-5, 1e-5)),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model: where the signal is lost."""
        deep = audit.flow.deep
        known = [p for p in deep.stream if p.variation is not None] if deep else []
        if not known or max(map(_spread, known)) < self.apart:
            return
        worst = _spread(known[-1])
        if worst < self.warning:
            yield self._finding(known, audit.flow, worst)

    def _finding(
        self, points: Sequence[StreamPoint], flow: GradientFlow, worst: float
    ) -> Finding:
        severe = worst < self.error
        limit = self.error if severe else self.warning
        first = next(point for point in points if _spread(point) < limit)
        value = flow.attenuation.value if flow.attenuation is not None else None
        both = value is not None and value <= self.lost
        far = f"the outputs differ by {number(worst)} of their size"
        said = "" if value is None else f" ({decades(value)} decades)"
        gradient = (
            f"the gradient is lost as well{said}: the weights or slopes are too small"
            if both
            else f"the gradient itself travels well{said}: larger steps do not help"
        )
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            layer=first.layer,
            layers=tuple(p.layer for p in points if _spread(p) < limit),
            message=(
                f"from {visible(first.layer)} on the outputs are equal for all inputs: "
                f"they differ by {number(_spread(first))} of their size, by "
                f"{number(worst)} at the end (limit {number(limit)})"
            ),
            value=worst,
            limit=limit,
            unit="relative spread",
            evidence=(gradient,),
            fix=self.advice(
                "rescale the weights, or normalise over the batch",
                f"{far}, and signal and gradient are lost alike{said}",
            )
            if both
            else self.advice(
                "normalise over the batch, or rescale, before anything that acts on "
                "the gradient",
                f"{far}: the gradient{said} has nothing to learn from",
            ),
        )


def _spread(point: StreamPoint) -> float:
    return 1.0 if point.variation is None else point.variation
