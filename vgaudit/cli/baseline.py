"""``vgaudit baseline write|show|prune``: the stored state that CI compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import options as o
from vgaudit.cli import project_options as p

app = typer.Typer(
    name="baseline",
    help="Write, show or prune what is known already.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Reports = Annotated[
    list[Path],
    typer.Argument(
        help="Reports of scan or check, written by --report json=PATH.",
        metavar="REPORT.json...",
        show_default=False,
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="The baseline file: that of the configuration, or "
        "vgaudit-baseline.json, without it.",
        metavar="FILE",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="The name of a single report's target.", metavar="NAME"),
]


@app.command()
def write(
    ctx: typer.Context,
    files: Reports,
    out: File = None,
    target: Name = None,
    config: p.ConfigOption = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> int:
    """Keep the findings and figures of reports as what is known.

    Nothing is kept of a run that failed or measured too little.
    """
    from vgaudit import baseline as stored
    from vgaudit.cli import baselines, suites
    from vgaudit.cli.output import check_writable
    from vgaudit.cli.output import write as write_file

    path = baselines.place(ctx, out)
    found = stored.from_suite(suites.opened(files, name=target))
    check_writable(path, inputs=tuple(map(str, files)), force=force)
    write_file(path, stored.render(found))
    baselines.tell(path, found)
    return 0


@app.command()
def show(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="The baseline file.", metavar="[FILE]", show_default=False),
    ] = None,
    config: p.ConfigOption = None,
    format: Annotated[
        str, typer.Option("--format", help="text or json.", rich_help_panel=o.OUTPUT)
    ] = "text",
    debug: o.Debug = False,
) -> int:
    """Show what is known: the findings and figures of each target."""
    from vgaudit import baseline as stored
    from vgaudit.cli import baselines
    from vgaudit.cli.output import show as show_text

    baselines.check_format(format)
    found = stored.load(baselines.place(ctx, file))
    show_text(stored.render(found) if format == "json" else baselines.words(found))
    return 0


@app.command()
def prune(
    ctx: typer.Context,
    files: Reports,
    out: File = None,
    target: Name = None,
    config: p.ConfigOption = None,
    debug: o.Debug = False,
) -> int:
    """Forget findings that are gone, and keep figures that became better.

    New findings and worse figures are not taken over: see `vgaudit baseline write`.
    """
    from vgaudit import baseline as stored
    from vgaudit.cli import baselines, suites
    from vgaudit.cli.output import write as write_file

    path = baselines.place(ctx, out)
    before = stored.load(path)
    after = stored.pruned(before, suites.opened(files, name=target))
    write_file(path, stored.render(after))
    baselines.tell_pruned(path, before, after)
    return 0
