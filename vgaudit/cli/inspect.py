"""``vgaudit inspect MODEL``: what a file is, without running anything in it."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import options as o

Graph = Annotated[
    bool,
    typer.Option(
        "--graph",
        help="Load the model and show its layers and trunk, by shapes alone: nothing "
        "is computed.",
    ),
]


def inspect(
    ctx: typer.Context,
    model: o.Model,
    graph: Graph = False,
    arch: o.Arch = None,
    weights: o.Weights = None,
    key: o.Key = None,
    model_arg: o.ModelArg = None,
    allow_missing: o.AllowMissing = False,
    pretrained: o.Pretrained = False,
    data: o.Data = None,
    input: o.Input = None,
    batch_size: o.BatchSize = None,
    mode: o.ModeOption = o.Mode.train,
    seed: o.Seed = 0,
    timeout: o.Timeout = 600.0,
    max_memory: o.MaxMemory = None,
    format: o.Format = "text",
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
    """Show format, sha256, trust tier and unsafe globals of a file; run nothing."""
    from vgaudit.cli import jobs
    from vgaudit.cli.output import renderer, show
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.reports import inspection, structure

    renderer(format)
    job, limits = jobs.structure_job(ctx.params), jobs.limits(ctx.params)
    task = "structure" if graph else "inspect"
    with Phases(silent=no_progress, quiet=quiet) as phases:
        found = run(task, job, limits=limits, watcher=phases)
    if graph:
        show(structure.render(structure.parse(found), form=format))
    else:
        show(inspection.render(found, form=format))
    return 0
