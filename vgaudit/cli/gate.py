"""``vgaudit gate REPORT.json``: decide only, without the model and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli import project_options as p
from vgaudit.cli.grouping import grouped


@grouped
def gate(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Reports of scan or check, written by --report json=PATH.",
            metavar="REPORT.json...",
            show_default=False,
        ),
    ],
    *,
    target: Annotated[
        str | None,
        typer.Option(
            help="The name of a single report's target in the configuration and the "
            "baseline.",
            metavar="NAME",
            rich_help_panel=o.JUDGE,
        ),
    ] = None,
    config: p.ConfigOption = None,
    preset: p.PresetOption = None,
    baseline: p.BaselineOption = None,
    allow_no_baseline: p.AllowNoBaseline = False,
    gating: g.Gating,
    reporting: g.Reporting,
    top: o.Top = 20,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> int:
    """Judge reports again: rules, ignores, budgets, and what the baseline knows.

    The optimizer, the thresholds and --fail-on are those of the report unless they
    are given here or in the configuration.
    """
    from vgaudit.cli import deciding, suites
    from vgaudit.cli.output import Outputs
    from vgaudit.gate import judged_again

    stored = deciding.stored(ctx)
    found = suites.opened(files, name=target)
    names = [entry.name for entry in found.entries]
    outputs = Outputs.chosen(ctx.params, inputs=tuple(map(str, files)))
    outputs = suites.prepared(outputs, names, force=reporting.force)
    policies = deciding.policies_again(ctx, found)
    reports = {x.name: judged_again(x.report, policies[x.name]) for x in found.entries}
    suite = deciding.decided(ctx, reports, policies, stored)
    return suites.deliver(outputs, suite, plain=True)
