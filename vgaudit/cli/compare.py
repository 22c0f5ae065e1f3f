"""``vgaudit compare A B``: two reports or models side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli.grouping import grouped


@grouped
def compare(
    ctx: typer.Context,
    before: Annotated[
        str,
        typer.Argument(
            help="A report written by --report json=PATH, or a model as for scan. Of "
            "a training or conversion the scan after it; FILE.json#before is the one "
            "before.",
            show_default=False,
        ),
    ],
    after: Annotated[
        str, typer.Argument(help="A later one, or another model.", show_default=False)
    ],
    *,
    architecture: g.Architecture,
    measuring: g.Measuring,
    batch_size: o.BatchSize = None,
    unfreeze: o.Unfreeze = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    gating: g.Gating,
    reporting: g.ChangeReporting,
    top: o.Top = 20,
    terminal: g.Terminal,
    trust: g.Trust,
) -> int:
    """Show accuracy, loss and gradient health of two models side by side.

    And which findings are gone, new and kept. Models are scanned on the same data, in
    processes of their own, and scored on it where it has labels; reports are read as
    they are, without torch. Exits 1 where a finding of the level of --fail-on or
    worse is new, or was milder before.
    """
    from vgaudit.cli import jobs
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.sides import sides
    from vgaudit.compare import compare as compared
    from vgaudit.findings import LEVELS
    from vgaudit.reports import comparison as words

    policy = jobs.policy(ctx.params, ctx.obj)
    outputs = Changes.chosen(ctx.params, inputs=(before, after, measuring.data))
    (old, left), (new, right) = sides((before, after), ctx.params, policy)
    found = compared(old, new, known=(left, right))
    outputs.deliver(
        lambda form: words.render(found, form=form, top=top, reports=(old, new))
    )
    if gating.fail_on is o.FailOn.never or gating.exit_zero:
        return 0
    worst = LEVELS.index(gating.fail_on.value)
    came = (*found.new, *(finding for _, finding in found.risen))
    return int(any(LEVELS.index(finding.level) <= worst for finding in came))
