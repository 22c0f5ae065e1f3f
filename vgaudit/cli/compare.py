"""``vgaudit compare A B``: two reports or models side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import options as o


def compare(
    ctx: typer.Context,
    before: Annotated[
        str,
        typer.Argument(
            help="A report written by --report json=PATH, or a model as for scan.",
            show_default=False,
        ),
    ],
    after: Annotated[
        str, typer.Argument(help="A later one, or another model.", show_default=False)
    ],
    arch: o.Arch = None,
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
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    optimizer: o.OptimizerOption = o.OptimizerName.sgd,
    select: o.Select = None,
    ignore: o.Ignore = None,
    set: o.Set = None,
    fail_on: o.FailOnOption = o.FailOn.error,
    exit_zero: o.ExitZero = False,
    format: o.Format = "text",
    report: o.ReportTo = None,
    force: o.Force = False,
    top: o.Top = 20,
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
    """Show which findings are gone, new and kept, and how the figures moved.

    Models are scanned on the same data, in processes of their own; reports are read
    as they are, without torch. Exits 1 where a finding of the level of --fail-on or
    worse is new.
    """
    from vgaudit.cli import jobs
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.sides import sides
    from vgaudit.compare import compare as compared
    from vgaudit.findings import LEVELS
    from vgaudit.reports import comparison as words

    policy = jobs.policy(ctx.params, ctx.obj)
    outputs = Changes.chosen(ctx.params, inputs=(before, after, data))
    old, new = sides((before, after), ctx.params, policy)
    found = compared(old, new)
    outputs.deliver(
        lambda form: words.render(found, form=form, top=top, reports=(old, new))
    )
    if fail_on is o.FailOn.never or exit_zero:
        return 0
    worst = LEVELS.index(fail_on.value)
    return int(any(LEVELS.index(finding.level) <= worst for finding in found.new))
