"""What was done to the layers of a model, by whichever treatment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vgaudit.conversion import Edit, Refusal
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.steps import Step


@dataclass(slots=True)
class Done:
    """What was done to the layers of a model: for the user, and to be replayed."""

    edits: list[Edit] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def add(self, edit: Edit | None, steps: Sequence[Step]) -> None:
        """Notes a layer; steps without an edit change nothing, but must be replayed."""
        self.edits += [edit] if edit is not None else []
        self.steps += steps

    def refuse(self, target: LayerTarget, error: CannotRewrite | BadConfig) -> None:
        """Notes why a layer was left as it was."""
        site = target.acts[0].site if target.acts else None
        self.refusals.append(
            Refusal(
                path=site.key if site else target.path,
                kind=target.kind,
                reason=error.message.removeprefix("VG701 "),
                source=site.source if site else None,
            )
        )
