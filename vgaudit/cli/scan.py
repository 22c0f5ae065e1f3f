"""``vgaudit scan MODEL``: load, run forward and backward, judge, report."""

from __future__ import annotations

import typer

from vgaudit.cli import options as o
from vgaudit.cli import project_options as p
from vgaudit.cli.pictures import Png


def scan(
    ctx: typer.Context,
    model: o.Model,
    arch: o.Arch = None,
    weights: o.Weights = None,
    key: o.Key = None,
    model_arg: o.ModelArg = None,
    allow_missing: o.AllowMissing = False,
    pretrained: o.Pretrained = False,
    data: o.Data = None,
    input: o.Input = None,
    loss: o.Loss = None,
    batches: o.Batches = 4,
    batch_size: o.BatchSize = None,
    mode: o.ModeOption = o.Mode.train,
    device: o.Device = "cpu",
    dtype: o.Dtype = "auto",
    seed: o.Seed = 0,
    output: o.OutputOption = None,
    unfreeze: o.Unfreeze = False,
    allow_nonfinite: o.AllowNonfinite = False,
    deep: o.Deep = False,
    static: o.Static = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    config: p.ConfigOption = None,
    preset: p.PresetOption = None,
    optimizer: o.OptimizerOption = o.OptimizerName.sgd,
    select: o.Select = None,
    ignore: o.Ignore = None,
    fail_on: o.FailOnOption = o.FailOn.error,
    set: o.Set = None,
    exit_zero: o.ExitZero = False,
    format: o.Format = "text",
    report: o.ReportTo = None,
    png: Png = None,
    force: o.Force = False,
    top: o.Top = 20,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
    allow_code: o.AllowCode = False,
    trust_pickle: o.TrustPickle = "",
    import_path: o.ImportPath = None,
    sha256: o.Sha256 = None,
    require_sandbox: o.RequireSandbox = False,
    no_sandbox: o.NoSandbox = False,
    env: o.Env = None,
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
    outputs = Outputs.chosen(ctx.params, inputs=(model, weights, data))
    pictures.check(png)
    job, limits = jobs.scan_job(ctx.params), jobs.limits(ctx.params)
    ending = early.ending(outputs)
    try:
        with Phases(silent=no_progress, quiet=quiet) as phases:
            answer = run("scan", job, limits=limits, watcher=phases, ending=ending)
        audit = parse_audit(answer)
    except VgauditError as error:
        told = early.told(error, ending)
        outputs.save(failed(told, policy))
        raise told from error
    judged = early.marked(judge(audit, policy), ending, asked=batches)
    pictures.save(png, judged, force=force)
    return outputs.deliver(judged)
