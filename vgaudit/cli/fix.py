"""``vgaudit fix MODEL --data DATA -o OUT``: diagnose, treat, prove."""

from __future__ import annotations

from typing import Any

import typer

from vgaudit.cli import fixing_options as f
from vgaudit.cli import options as o
from vgaudit.cli import retraining_options as r


def fix(
    ctx: typer.Context,
    model: o.Model,
    out: r.Out = None,
    budget: f.Budget = "10m",
    seeds: f.Seeds = 3,
    most_steps: f.MostSteps = None,
    batch_size: r.BatchSize = None,
    valid_split: f.ValidSplit = 0.2,
    resume: f.Resume = False,
    run_folder: f.RunFolder = None,
    timeout: r.Timeout = None,
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
    mode: o.ModeOption = o.Mode.train,
    device: o.Device = "cpu",
    dtype: o.Dtype = "auto",
    seed: o.Seed = 0,
    output: o.OutputOption = None,
    max_memory: o.MaxMemory = None,
    optimizer: o.OptimizerOption = o.OptimizerName.sgd,
    select: o.Select = None,
    ignore: o.Ignore = None,
    set: o.Set = None,
    fail_on: o.FailOnOption = o.FailOn.error,
    format: o.Format = "text",
    report: o.ReportTo = None,
    force: o.Force = False,
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
    """Diagnose a model, try what may help beside controls, and keep what does.

    A healthy model is left alone. Else treatments that fit the findings train on one
    budget with at least three seeds, beside a learning-rate sweep of the plain model
    and random repair; a treatment is kept only where its interval clears the best of
    them. Ctrl-C keeps what is finished; --resume continues.
    """
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.repair import repaired
    from vgaudit.cli.retrain import again, check_out
    from vgaudit.reports import fixing as words

    given: dict[str, Any] = {**ctx.params, "valid_data": None}
    check_out(given)
    outputs = Changes.chosen(given, inputs=(model, weights, data))
    done, status = repaired(given, ctx.obj)
    command = again(ctx.obj)
    outputs.deliver(lambda form: words.render(done, form=form, resume=command))
    return status
