"""``vgaudit inspect MODEL``: what a file is, without running anything in it."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import groups as g
from vgaudit.cli import options as o
from vgaudit.cli.grouping import grouped

Graph = Annotated[
    bool,
    typer.Option(
        "--graph",
        help="Load the model and show its layers and trunk, by shapes alone: nothing "
        "is computed.",
    ),
]


@grouped
def inspect(
    ctx: typer.Context,
    model: o.Model,
    *,
    graph: Graph = False,
    architecture: g.Architecture,
    stored: g.Stored,
    sample: g.Sample,
    batch_size: o.BatchSize = None,
    mode: o.ModeOption = o.Mode.train,
    seed: o.Seed = 0,
    timeout: o.Timeout = 600.0,
    max_memory: o.MaxMemory = None,
    format: o.Format = "text",
    terminal: g.Terminal,
    trust: g.Trust,
    sha256: o.Sha256 = None,
) -> int:
    """Show format, sha256, trust tier and unsafe globals of a file; run nothing."""
    from vgaudit.cli import jobs
    from vgaudit.cli.output import renderer, show
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.reports import inspection, structure

    renderer(format, ("text", "json"))
    job, limits = jobs.structure_job(ctx.params), jobs.limits(ctx.params)
    task = "structure" if graph else "inspect"
    with Phases(silent=terminal.no_progress, quiet=terminal.quiet) as phases:
        found = run(task, job, limits=limits, watcher=phases)
    if graph:
        show(structure.render(structure.parse(found), form=format))
    else:
        show(inspection.render(found, form=format))
    return 0
