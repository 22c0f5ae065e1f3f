"""``vgaudit check``: every target of the configuration, and one exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli import project_options as p
from vgaudit.cli.grouping import grouped


@grouped
def check(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of targets in the configuration; all without.",
            metavar="[TARGET]...",
            show_default=False,
        ),
    ] = None,
    *,
    config: p.ConfigOption = None,
    preset: p.PresetOption = None,
    baseline: p.BaselineOption = None,
    allow_no_baseline: p.AllowNoBaseline = False,
    jobs: p.Jobs = None,
    batches: o.Batches = 4,
    device: o.Device = "cpu",
    seed: o.Seed = 0,
    deep: o.Deep = False,
    static: o.Static = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    gating: g.Gating,
    reporting: g.Reporting,
    top: o.Top = 20,
    verbose: o.Verbose = False,
    terminal: g.Terminal,
    trust: g.Trust,
) -> int:
    """Scan every target of the configuration, several at once, and decide.

    Reads the targets in pyproject.toml (tool.vgaudit.targets) or vgaudit.toml. Exits
    with the worst outcome of all: a target that cannot run is never hidden by others.
    """
    from contextlib import chdir

    from vgaudit.cli import checking, deciding, suites
    from vgaudit.cli.configured import tell
    from vgaudit.cli.output import Outputs

    settings = checking.project(ctx)
    chosen = settings.chosen(tuple(targets or ()))
    names = [target.name for target in chosen]
    outputs = Outputs.chosen(ctx.params, inputs=())
    outputs = suites.prepared(outputs, names, force=reporting.force)
    tell(settings, quiet=terminal.quiet or terminal.no_progress)
    plans, stored = checking.plans(ctx, chosen), deciding.stored(ctx)
    with chdir(settings.folder):
        reports = checking.scanned(plans, checking.Pace.chosen(ctx, settings, plans))
        policies = {plan.name: plan.policy for plan in plans}
        suite = deciding.decided(ctx, reports, policies, stored)
        return suites.deliver(outputs, suite)
