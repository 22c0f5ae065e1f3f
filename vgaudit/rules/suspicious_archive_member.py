"""VG003: an archive with members that torch.save does not write."""

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
class SuspiciousArchiveMember(Rule):
    """The archive holds members that no PyTorch writes.

    What it measures:
        The member names of a zip-based checkpoint: path traversal (`../x`),
        absolute paths, duplicates, and whatever else the loader set aside.
        Nothing is ever extracted, so nothing of it was followed.

    Why it matters:
        vgaudit does not touch such members, but the next tool that unpacks the
        file may write outside its folder.

    False alarms:
        Files that were repacked by hand or by a tool that adds its own metadata.

    Treatments:
        Ask where the file came from; write it again from the loaded weights.

    References:
        CWE-22, “Improper limitation of a pathname to a restricted directory”.
    """

    code: ClassVar[str] = "VG003"
    name: ClassVar[str] = "suspicious-archive-member"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a member that climbs out of its folder",
            loaded(chain(), archive_notes=("member '../../x' leaves the archive",)),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (Example("a plain archive", chain()),)

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the whole archive."""
        notes = audit.target.archive_notes
        if notes:
            yield Finding(
                code=self.code,
                name=self.name,
                level="warning",
                message=f"{count(len(notes), 'suspicious member')}: {names(notes)}",
                value=float(len(notes)),
                limit=0.0,
                unit="members",
                fix=self.advice(
                    "write the file again from the loaded weights",
                    f"{count(len(notes), 'member')} cannot come from torch.save, and "
                    "what unpacks the file may follow them",
                ),
            )
