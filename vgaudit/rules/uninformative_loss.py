"""VG502: a loss that teaches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import Audit, GradientFlow, LossFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import chain, having, parameter
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, number


def _loss(*, std: float = 0.1, nonfinite: int = 0) -> LossFlow:
    return LossFlow(name="cross-entropy", value=2.3, std=std, nonfinite=nonfinite)


def _flat() -> Audit:
    audit = having(chain((-1.0, 0.0)), probe="loss", loss=_loss(std=0.0))
    for index in (0, 2):
        for part in ("weight", "bias"):
            audit = parameter(audit, f"layers.{index}.{part}", grad_norm=0.0)
    return audit


@dataclass(frozen=True, slots=True)
class UninformativeLoss(Rule):
    """The loss is not a number, or does not depend on the model.

    What it measures:
        The loss of every batch: NaN or infinite ones are counted. A loss is constant
        where it has the same value in every batch and no parameter a gradient.

    Why it matters:
        Without a loss that answers to the weights there is nothing to learn, and
        every question about the gradient's way through the model is idle.

    False alarms:
        None known; a single batch that is repeated keeps its gradient.

    Treatments:
        Check that the loss fits the output (`--loss`): logits for cross-entropy,
        one column for binary targets. A logarithm or division of zero makes it
        infinite; a hinge that is satisfied everywhere makes it constant.

    References:
        Goodfellow, Bengio and Courville 2016, “Deep learning”, §6.2.
    """

    code: ClassVar[str] = "VG502"
    name: ClassVar[str] = "uninformative-loss"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a NaN loss", having(chain(), loss=_loss(nonfinite=2)), "error"),
        Example("a constant loss", _flat(), "error"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("no loss was used", chain()),
        Example("a loss that varies", having(chain(), loss=_loss())),
        Example(
            "the same batch every time keeps its gradient",
            having(chain(), loss=_loss(std=0.0)),
        ),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the loss."""
        loss = audit.flow.loss
        if loss is None:
            return
        if loss.nonfinite:
            yield self._finding(
                f"{visible(loss.name)} is NaN or infinite in {loss.nonfinite:,} of "
                f"{count(audit.flow.batches + audit.flow.skipped, 'batch')}",
                value=float(loss.nonfinite),
                fix=self.advice(
                    "a loss that is finite on these outputs: logits instead of "
                    "probabilities, no logarithm of what can be 0",
                    "one such step turns every weight into NaN, and there would be "
                    f"{loss.nonfinite:,} of them",
                ),
            )
        elif loss.std == 0 and audit.flow.batches > 1 and _without_gradient(audit.flow):
            yield self._finding(
                f"{visible(loss.name)} is {number(loss.value)} in every batch and no "
                "parameter has a gradient: it does not depend on the model",
                value=loss.value,
                fix=self.advice(
                    "a loss that reads the output, without argmax, round or detach",
                    f"it deviates by 0 over {count(audit.flow.batches, 'batch')}",
                ),
            )

    def _finding(self, message: str, *, value: float, fix: Fix) -> Finding:
        return Finding(
            code=self.code,
            name=self.name,
            level="error",
            message=message,
            value=value,
            fix=fix,
        )


def _without_gradient(flow: GradientFlow) -> bool:
    return all(p.grad_norm == 0 for p in flow.parameters if p.trainable)
