"""``vgaudit report FILE``: archived JSON reports in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import options as o


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Reports of scan or check, written by --report json=PATH.",
            metavar="FILE...",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="The format: text, json, markdown, sarif, junit, github, csv …"
        ),
    ] = "text",
    top: o.Top = 20,
    verbose: o.Verbose = False,
) -> int:
    """Render JSON reports again, without the model and without torch.

    Exits 0 whatever they say: nothing is judged again.
    """
    from vgaudit.cli import suites
    from vgaudit.cli.output import Outputs, look, renderer

    renderer(to)
    suite = suites.opened(files)
    outputs = Outputs(form=to, files=(), look=look(top=top, verbose=verbose))
    names = [entry.name for entry in suite.entries]
    outputs = suites.prepared(outputs, names, force=False)
    suites.deliver(outputs, suite, plain=True)
    return 0
