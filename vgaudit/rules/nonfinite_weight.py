"""VG001: weights that are not numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, loaded
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, names, place


@dataclass(frozen=True, slots=True)
class NonfiniteWeight(Rule):
    """A parameter or buffer holds NaN or infinity.

    What it measures:
        Every floating-point parameter and buffer of the file, element by element.

    Why it matters:
        One NaN spreads through the first forward pass into every output and every
        gradient. The model is broken before any question of transport arises, and
        no optimizer step repairs it.

    False alarms:
        None known. Infinity in a buffer is none, an attention mask or a best loss so
        far, unless the buffer lies among running statistics.

    Treatments:
        Go back to an earlier checkpoint. If training produced it, lower the
        learning rate, clip gradients, or look for a division by zero in the loss.

    References:
        IEEE 754-2019, §6.2 (propagation of NaN).
    """

    code: ClassVar[str] = "VG001"
    name: ClassVar[str] = "nonfinite-weight"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a NaN in one kernel",
            loaded(chain(), nonfinite_weights=("layers.0.weight",)),
            "error",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (Example("finite weights", chain()),)

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for all such tensors."""
        bad = audit.target.nonfinite_weights
        if bad:
            yield Finding(
                code=self.code,
                name=self.name,
                level="error",
                layer=place(bad),
                layers=bad,
                message=f"{count(len(bad), 'tensor')} with NaN or inf: {names(bad)}",
                value=float(len(bad)),
                limit=0.0,
                unit="tensors",
                fix=self.advice(
                    "go back to a checkpoint from before the weights broke",
                    f"no step mends {count(len(bad), 'tensor')} with NaN or inf: what "
                    "they touch becomes NaN too",
                ),
            )
