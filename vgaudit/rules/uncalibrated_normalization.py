"""VG004: normalization statistics that were never updated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, having
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, names, place


@dataclass(frozen=True, slots=True)
class UncalibratedNormalization(Rule):
    """Normalization runs on statistics that were never updated.

    What it measures:
        Normalization layers that run in eval mode while their running mean and
        variance are still those of a fresh layer (0 and 1, no batch counted).

    Why it matters:
        Such a layer does not normalize. The signal grows or shrinks as if it were
        absent, and every figure below it describes a network that nobody trains:
        MobileNetV3 shows −0.9 decades in train mode and −10 like this. The verdict
        is therefore inconclusive (exit code 4), and the rules on the size of
        gradients stay silent.

    False alarms:
        A layer whose true statistics happen to be exactly 0 and 1.

    Treatments:
        Scan in train mode (`--mode train`, the default), or let the statistics
        settle on data before the scan.

    References:
        Ioffe and Szegedy 2015, “Batch normalization”.
    """

    code: ClassVar[str] = "VG004"
    name: ClassVar[str] = "uncalibrated-normalization"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "eval mode on a fresh BatchNorm",
            having(chain(), mode="eval", uncalibrated=("bn1", "bn2")),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("eval mode on settled statistics", having(chain(), mode="eval")),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for all such layers."""
        fresh = audit.flow.uncalibrated
        if fresh:
            yield Finding(
                code=self.code,
                name=self.name,
                level="warning",
                layer=place(fresh),
                layers=fresh,
                message=(
                    f"{count(len(fresh), 'normalization layer')} with statistics that "
                    f"were never updated ({names(fresh)}): uncalibrated, no verdict"
                ),
                value=float(len(fresh)),
                limit=0.0,
                unit="layers",
                fix=Fix(
                    command="vgaudit scan … --mode train",
                    text="measure with the statistics of the batch",
                    reason=f"{count(len(fresh), 'layer')} would divide by a variance "
                    "of 1 that was never measured",
                ),
            )
