"""``vgaudit compare A.json B.json``: two reports side by side, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import options as o


def compare(
    ctx: typer.Context,
    before: Annotated[
        Path, typer.Argument(help="A report written by --report json=PATH.")
    ],
    after: Annotated[Path, typer.Argument(help="A later report.")],
    fail_on: o.FailOnOption = o.FailOn.error,
    exit_zero: o.ExitZero = False,
    format: o.Format = "text",
    report: o.ReportTo = None,
    force: o.Force = False,
    top: o.Top = 20,
) -> int:
    """Show which findings are gone, new and kept, and how the figures moved.

    Exits 1 where a finding of the level of --fail-on or worse is new.
    """
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.output import read
    from vgaudit.compare import compare as compared
    from vgaudit.findings import LEVELS
    from vgaudit.reports import comparison as words
    from vgaudit.reports.json import parse

    outputs = Changes.chosen(ctx.params, inputs=(str(before), str(after)))
    old, new = parse(read(before)), parse(read(after))
    found = compared(old, new)
    outputs.deliver(
        lambda form: words.render(found, form=form, top=top, reports=(old, new))
    )
    if fail_on is o.FailOn.never or exit_zero:
        return 0
    worst = LEVELS.index(fail_on.value)
    return int(any(LEVELS.index(finding.level) <= worst for finding in found.new))
