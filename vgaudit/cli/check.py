"""``vgaudit check``: every target of the configuration, and one exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import options as o
from vgaudit.cli import project_options as p


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
    config: p.ConfigOption = None,
    preset: p.PresetOption = None,
    baseline: p.BaselineOption = None,
    allow_no_baseline: p.AllowNoBaseline = False,
    jobs: p.Jobs = None,
    batches: o.Batches = 4,
    device: o.Device = "cpu",
    seed: o.Seed = 0,
    static: o.Static = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    optimizer: o.OptimizerOption = o.OptimizerName.sgd,
    select: o.Select = None,
    ignore: o.Ignore = None,
    fail_on: o.FailOnOption = o.FailOn.error,
    set: o.Set = None,
    exit_zero: o.ExitZero = False,
    format: o.Format = "text",
    report: o.ReportTo = None,
    force: o.Force = False,
    top: o.Top = 20,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
    allow_code: o.AllowCode = False,
    trust_pickle: o.TrustPickle = "",
    import_path: o.ImportPath = None,
    require_sandbox: o.RequireSandbox = False,
    no_sandbox: o.NoSandbox = False,
    env: o.Env = None,
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
    outputs = suites.prepared(outputs, names, force=force)
    tell(settings, quiet=quiet or no_progress)
    plans, stored = checking.plans(ctx, chosen), deciding.stored(ctx)
    with chdir(settings.folder):
        reports = checking.scanned(plans, checking.Pace.chosen(ctx, settings, plans))
        policies = {plan.name: plan.policy for plan in plans}
        suite = deciding.decided(ctx, reports, policies, stored)
        return suites.deliver(outputs, suite)
