"""``vgaudit retrain MODEL --with METHOD --data DATA``: train, prove, write."""

from __future__ import annotations

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli import retraining_options as r
from vgaudit.cli.grouping import grouped


@grouped
def retrain(
    ctx: typer.Context,
    model: o.Model,
    with_: r.With,
    *,
    out: r.Out = None,
    solver: r.Solver = r.SolverName.gradient,
    epochs: r.Epochs = None,
    batch_size: r.BatchSize = None,
    accumulate: r.Accumulate = 1,
    lr: r.Lr = None,
    weight_decay: r.WeightDecay = 0.0,
    momentum: r.Momentum = 0.9,
    schedule: r.Schedule = r.ScheduleName.auto,
    warmup: r.Warmup = 0.05,
    clip: r.Clip = None,
    amp: r.Amp = r.AmpName.off,
    parallel: r.Parallel = o.ParallelName.ddp,
    setting: r.Settings = None,
    valid_split: r.ValidSplit = 0.1,
    valid_data: r.ValidData = None,
    patience: r.Patience = None,
    control: r.Control = None,
    resume: r.Resume = False,
    run_folder: r.RunFolder = None,
    checkpoint_every: r.CheckpointEvery = 60.0,
    timeout: r.Timeout = None,
    architecture: g.Architecture,
    stored: g.Stored,
    measuring: g.Measuring,
    max_memory: o.MaxMemory = None,
    judging: g.Judging,
    reporting: g.ChangeReporting,
    top: o.Top = 12,
    terminal: g.Terminal,
    trust: g.Trust,
    sha256: o.Sha256 = None,
) -> int:
    """Train a model, and prove what that changed.

    Shows every epoch with the attenuation of the gradient, trains controls from the
    same start beside it, scans before and after, and keeps the best epoch. Ctrl-C and
    SIGTERM finish the step and save; --resume continues.
    """
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.output import check_model
    from vgaudit.cli.training import again, compared, trained
    from vgaudit.reports import retraining as words

    inputs = (model, stored.weights, measuring.data, valid_data)
    check_model(out, inputs=inputs, force=reporting.force, weights="weights")
    outputs = Changes.chosen(ctx.params, inputs=inputs)
    done, status = trained(ctx.params, ctx.obj)
    both = compared(done, ctx.params, ctx.obj)
    command = again(ctx.obj, reported=True)
    outputs.deliver(
        lambda form: words.render(done, both, form=form, top=top, resume=command),
        written=done.written,
    )
    return status
