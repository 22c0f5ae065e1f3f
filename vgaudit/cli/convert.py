"""``vgaudit convert MODEL --to TREATMENT``: rewrite, prove, write."""

from __future__ import annotations

from typing import Any

import typer

from vgaudit.cli import convert_options as c
from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli.grouping import grouped


@grouped
def convert(
    ctx: typer.Context,
    model: o.Model,
    to: c.To,
    *,
    out: c.Out = None,
    layers: c.Layers = None,
    skip: c.Skip = None,
    preserve: c.Preserve = False,
    limit: c.Limit = None,
    limit_from: c.LimitFrom = None,
    ar_type: c.ArType = c.LimitTypeName.auto_indep,
    denominator: c.DenominatorOption = c.DenominatorName.moments,
    border: c.BorderOption = c.BorderName.interior,
    ar_axis: c.ArAxis = None,
    fold: c.Fold = None,
    centre: c.Centre = None,
    refit: c.Refit = None,
    normed: c.Normed = False,
    start: c.StartOption = c.StartName.auto,
    hinges: c.Hinges = 9,
    shared: c.Shared = False,
    unfuse: c.Unfuse = False,
    form: c.FormOption = c.FormName.module,
    architecture: g.Architecture,
    stored: g.Stored,
    measuring: g.Measuring,
    batch_size: o.BatchSize = None,
    unfreeze: o.Unfreeze = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    judging: g.Judging,
    reporting: g.ChangeReporting,
    top: o.Top = 12,
    terminal: g.Terminal,
    trust: g.Trust,
    sha256: o.Sha256 = None,
) -> int:
    """Treat a model against vanishing gradients, and prove what changed.

    Says what was converted, what was not and why, how far the outputs moved, and
    what the same scan says before and after. Exits 3 where nothing was converted.
    """
    from vgaudit.cli.changes import Changes
    from vgaudit.cli.output import check_model
    from vgaudit.reports import comparison as words

    inputs = (model, stored.weights, measuring.data)
    outputs = Changes.chosen(ctx.params, inputs=inputs)
    check_model(
        out, inputs=inputs, force=reporting.force, weights="weights with a recipe"
    )
    done, compared = _convert(ctx)
    done = words.with_notes(done, words.advice(done, compared))
    outputs.deliver(
        lambda form: words.render_conversion(done, compared, form=form, top=top),
        written=done.written,
    )
    return 0


def _convert(ctx: typer.Context) -> tuple[Any, Any]:
    """Runs the worker; returns the conversion and the comparison of both scans."""
    import shlex

    from vgaudit.cli import jobs
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.compare import compare
    from vgaudit.judge import judge
    from vgaudit.reports.comparison import parse_conversion

    given = {**ctx.params, "allow_nonfinite": False, "exit_zero": True}
    given["fail_on"] = o.FailOn.error
    policy = jobs.policy(given, ctx.obj)
    job = {
        "scan": jobs.scan_job(given),
        "options": _options(given),
        "output": None if given["out"] is None else str(given["out"]),
        "force": given["force"],
        "command": shlex.join(["vgaudit", *ctx.obj]),
    }
    with Phases(silent=given["no_progress"], quiet=given["quiet"]) as phases:
        answer = run("convert", job, limits=jobs.limits(given), watcher=phases)
    done = parse_conversion(answer)
    assert done.before is not None
    assert done.after is not None
    return done, compare(judge(done.before, policy), judge(done.after, policy))


def _options(given: dict[str, Any]) -> Any:
    from vgaudit.conversion import ConvertOptions

    return ConvertOptions(
        to=given["to"].value,
        layers=tuple(given["layers"] or ()),
        skip=tuple(given["skip"] or ()),
        preserve=given["preserve"],
        limit=given["limit"],
        limit_from=None if given["limit_from"] is None else given["limit_from"].value,
        limit_type=given["ar_type"].value,
        denominator=given["denominator"].value,
        border=given["border"].value,
        ar_axis=tuple(given["ar_axis"] or ()),
        fold=given["fold"],
        centre=given["centre"],
        refit=given["refit"],
        normed=given["normed"],
        start=given["start"].value,
        hinges=given["hinges"],
        shared=given["shared"],
        unfuse=given["unfuse"],
        form=given["form"].value,
    )
