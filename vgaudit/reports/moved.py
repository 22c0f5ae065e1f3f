"""What moved between two reports, in words that text and HTML share."""

from __future__ import annotations

from collections.abc import Iterator

from vgaudit.compare import Comparison
from vgaudit.findings import Level
from vgaudit.rules.wording import count


def counted(found: Comparison) -> str:
    """Returns ``1 finding gone, 0 findings new, 2 findings kept, 1 of them graver``."""
    return ", ".join(_counted(found))


def _counted(found: Comparison) -> Iterator[str]:
    for findings, what in (
        (found.gone, "gone"),
        (found.new, "new"),
        (found.kept, "kept"),
    ):
        yield f"{count(len(findings), 'finding')} {what}"
    for moved, what in ((found.risen, "graver"), (found.fallen, "milder")):
        if moved:
            yield f"{len(moved):,} of them {what}"


def shifted(before: Level, after: Level) -> str:
    """Returns ``info → error``."""
    return f"{before} → {after}"
