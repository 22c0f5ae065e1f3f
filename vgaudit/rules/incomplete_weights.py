"""VG002: weights that do not cover the architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, loaded
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, names


@dataclass(frozen=True, slots=True)
class IncompleteWeights(Rule):
    """Weights are missing from the file, or the file holds weights without a place.

    What it measures:
        The keys of the file against the keys of the architecture, after known
        prefixes were stripped. It can only arise with `--allow-missing`; otherwise
        such a file is refused.

    Why it matters:
        A missing weight keeps its random initialisation: the figures of its layer
        describe that and not the trained model. Many keys on both sides at once
        mean that the file belongs to another architecture.

    False alarms:
        A head that was replaced on purpose for fine-tuning.

    Treatments:
        Name the architecture that the file was trained with, or the entry of the
        checkpoint that holds the weights (`--key`).

    References:
        PyTorch documentation, `torch.nn.Module.load_state_dict`, `strict`.
    """

    code: ClassVar[str] = "VG002"
    name: ClassVar[str] = "incomplete-weights"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a missing head", loaded(chain(), missing_keys=("head.weight",)), "warning"
        ),
        Example(
            "a key without a place",
            loaded(chain(), unexpected_keys=("teacher.weight",)),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("every key has its place", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for both sides."""
        missing, extra = audit.target.missing_keys, audit.target.unexpected_keys
        parts = []
        if missing:
            text = f"{count(len(missing), 'key')} missing, left at random"
            parts.append(f"{text}: {names(missing)}")
        if extra:
            parts.append(f"{count(len(extra), 'key')} without a place: {names(extra)}")
        if parts:
            yield Finding(
                code=self.code,
                name=self.name,
                level="warning",
                layers=missing,
                message="; ".join(parts),
                value=float(len(missing) + len(extra)),
                limit=0.0,
                unit="keys",
                fix=self.advice(
                    "give the --arch or the --key that the weights belong to",
                    f"the figures of {count(len(missing), 'key')} are those of random "
                    "numbers"
                    if missing
                    else f"{count(len(extra), 'key')} of the file had no part in the "
                    "figures",
                ),
            )
