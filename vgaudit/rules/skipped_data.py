"""VG501: data that was left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, fed, having
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, names


@dataclass(frozen=True, slots=True)
class SkippedData(Rule):
    """Some of the data could not be used.

    What it measures:
        Batches that held NaN or infinity, and samples or files that could not be
        read, with the reason for each.

    Why it matters:
        The figures describe the rest. A training loop does not skip them: the first
        such batch puts NaN into every weight.

    False alarms:
        None known.

    Treatments:
        Repair or remove the named files; look for a division by a zero standard
        deviation in the preprocessing.

    References:
        Breck et al. 2019, “Data validation for machine learning”.
    """

    code: ClassVar[str] = "VG501"
    name: ClassVar[str] = "skipped-data"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a batch with NaN", having(chain(), skipped=1), "warning"),
        Example(
            "a broken image", fed(chain(), skipped=("a.png: truncated",)), "warning"
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (Example("all data used", chain()),)

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for batches and files together."""
        batches, files = audit.flow.skipped, audit.data.skipped
        parts = []
        if batches:
            parts.append(f"{count(batches, 'batch')} with NaN or infinity left out")
        if files:
            parts.append(
                f"{count(len(files), 'item')} could not be used: {names(files)}"
            )
        if parts:
            yield Finding(
                code=self.code,
                name=self.name,
                level="warning",
                message="; ".join(parts),
                value=float(batches + len(files)),
                limit=0.0,
                unit="items",
                fix=self.advice(
                    "repair or remove what is named",
                    "the figures are those of the "
                    f"{count(audit.flow.samples, 'sample')} that are left",
                ),
            )
