"""``vgaudit fix MODEL --data DATA -o OUT``: diagnose, treat, prove."""

from __future__ import annotations

from typing import Any

import typer

from vgaudit.cli import fixing_options as f
from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli import retraining_options as r
from vgaudit.cli.grouping import grouped


@grouped
def fix(
    ctx: typer.Context,
    model: o.Model,
    *,
    out: r.Out = None,
    budget: f.Budget = "10m",
    seeds: f.Seeds = 3,
    trials: f.Trials = 8,
    most_steps: f.MostSteps = None,
    no_trial: f.NoTrial = False,
    batch_size: r.BatchSize = None,
    valid_split: f.ValidSplit = 0.2,
    resume: f.Resume = False,
    run_folder: f.RunFolder = None,
    timeout: r.Timeout = None,
    architecture: g.Architecture,
    stored: g.Stored,
    measuring: g.Measuring,
    max_memory: o.MaxMemory = None,
    judging: g.Judging,
    fail_on: o.FailOnOption = o.FailOn.error,
    reporting: g.ChangeReporting,
    terminal: g.Terminal,
    trust: g.Trust,
    sha256: o.Sha256 = None,
) -> int:
    """Diagnose a model, try what may help beside controls, and keep what does.

    A model that no finding fails is trained for a moment as it came, and left alone
    where it learns. Else treatments that fit the findings, learning rates of the plain
    model and random repairs are searched on equal budgets, and the best of each is
    trained anew with at least three fresh seeds; a treatment is called a repair only
    where its interval clears those of both. Ctrl-C keeps what is finished; --resume
    continues.
    """
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.output import check_model
    from vgaudit.cli.repair import repaired
    from vgaudit.cli.training import again
    from vgaudit.reports import fixing as words

    given: dict[str, Any] = {**ctx.params, "valid_data": None}
    inputs = (model, stored.weights, measuring.data)
    check_model(out, inputs=inputs, force=reporting.force, weights="weights")
    outputs = Changes.chosen(given, inputs=inputs)
    done, status = repaired(given, ctx.obj)
    command = again(ctx.obj, reported=True)
    outputs.deliver(
        lambda form: words.render(done, form=form, resume=command),
        written=done.written,
    )
    return status
