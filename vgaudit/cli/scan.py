"""``vgaudit scan MODEL``: load, run forward and backward, judge, report."""

from __future__ import annotations

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli import project_options as p
from vgaudit.cli.grouping import grouped
from vgaudit.cli.pictures import Png


@grouped
def scan(
    ctx: typer.Context,
    model: o.Model,
    *,
    architecture: g.Architecture,
    stored: g.Stored,
    measuring: g.Measuring,
    batch_size: o.BatchSize = None,
    unfreeze: o.Unfreeze = False,
    allow_nonfinite: o.AllowNonfinite = False,
    deep: o.Deep = False,
    static: o.Static = False,
    parallel: o.Parallel = o.ParallelName.ddp,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    config: p.ConfigOption = None,
    preset: p.PresetOption = None,
    gating: g.Gating,
    reporting: g.Reporting,
    png: Png = None,
    top: o.Top = 20,
    verbose: o.Verbose = False,
    terminal: g.Terminal,
    trust: g.Trust,
    sha256: o.Sha256 = None,
) -> int:
    """Measure where a model's gradient is lost, and judge it.

    Loads MODEL without running code that comes with it, runs forward and backward
    on a few batches in a process of its own, and reports where the gradient goes.
    """
    from vgaudit.cli import early, jobs, pictures
    from vgaudit.cli.configured import settled
    from vgaudit.cli.output import Outputs
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.errors import VgauditError
    from vgaudit.judge import failed, judge
    from vgaudit.reports.json import parse_audit

    policy = jobs.policy(settled(ctx), ctx.obj)
    outputs = Outputs.chosen(ctx.params, inputs=(model, stored.weights, measuring.data))
    pictures.check(png)
    job, limits = jobs.scan_job(ctx.params), jobs.limits(ctx.params)
    ending = early.ending(outputs)
    try:
        with Phases(silent=terminal.no_progress, quiet=terminal.quiet) as phases:
            answer = run("scan", job, limits=limits, watcher=phases, ending=ending)
        audit = parse_audit(answer)
    except VgauditError as error:
        told = early.told(error, ending)
        raise outputs.failed(told, failed(told, policy)) from error
    judged = early.marked(judge(audit, policy), ending, asked=measuring.batches)
    return outputs.deliver(
        judged, lambda: pictures.save(png, judged, force=reporting.force)
    )
