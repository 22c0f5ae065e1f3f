"""VG005: a program exported in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, loaded
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count


@dataclass(frozen=True, slots=True)
class FrozenMode(Rule):
    """Batch norm and dropout are fixed in eval mode.

    What it measures:
        The switches of batch norm and dropout in the graph of an exported program
        (`torch.export`), where they are constants: one of them says evaluation.

    Why it matters:
        `model.train()` has no effect on such a program. What was measured is the
        gradient of the deployed model, not of one that trains: batch norm divides
        by its running statistics instead of the batch's, which can change every
        figure.

    False alarms:
        None, if evaluation is what you want to audit; ignore it then.

    Treatments:
        Export the model again after `model.train()`, or scan the eager model.

    References:
        PyTorch documentation, `torch.export`.
    """

    code: ClassVar[str] = "VG005"
    name: ClassVar[str] = "frozen-mode"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a program exported in eval mode",
            loaded(chain(), frozen_mode=True),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (Example("an eager model", chain()),)

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the whole program."""
        if audit.target.frozen_mode:
            yield Finding(
                code=self.code,
                name=self.name,
                level="warning",
                message="exported in eval mode: batch norm and dropout cannot be "
                "switched to training, so the figures are those of evaluation",
                fix=self.advice(
                    "export again after model.train(), or scan the eager model",
                    f"its {count(audit.flow.weight_layers, 'weight layer')} were "
                    "measured with running statistics in place of the batch's",
                ),
            )
