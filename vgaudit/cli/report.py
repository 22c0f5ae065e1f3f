"""``vgaudit report FILE``: an archived JSON report in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import options as o


def report(
    file: Annotated[
        Path,
        typer.Argument(help="A report written by --report json=PATH.", metavar="FILE"),
    ],
    to: Annotated[str, typer.Option(help="Format: text, json, html …")] = "text",
    top: o.Top = 20,
    verbose: o.Verbose = False,
) -> int:
    """Render a JSON report again, without the model and without torch.

    Exits 0 whatever the report says: nothing is judged again.
    """
    from vgaudit.cli.output import Outputs, look, read, renderer
    from vgaudit.reports.json import parse

    renderer(to)
    outputs = Outputs(form=to, files=(), look=look(top=top, verbose=verbose))
    outputs.deliver(parse(read(file)))
    return 0
