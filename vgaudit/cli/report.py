"""``vgaudit report FILE``: archived JSON reports in another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgaudit.cli import options as o
from vgaudit.cli.changes import require_change

FINDINGS = 20
"""Findings of a scan that are shown, as ``scan`` itself does."""

if TYPE_CHECKING:
    from vgaudit.reports.archive import Archived


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Reports of scan or check, written by --report json=PATH; or one "
            "of compare, convert, retrain or fix.",
            metavar="FILE...",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="The format: text, html, json, markdown, sarif, junit, github, csv; "
            "of compare, convert, retrain and fix text, html and json."
        ),
    ] = "text",
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Findings, edits or epochs to show; by default as many as the command "
            "itself shows.",
            rich_help_panel=o.OUTPUT,
            show_default=False,
        ),
    ] = None,
    verbose: o.Verbose = False,
) -> int:
    """Render JSON reports again, without the model and without torch.

    Exits 0 whatever they say: nothing is judged again.
    """
    from vgaudit.cli import suites
    from vgaudit.cli.output import Outputs, look, renderer, show

    change = _change(files)
    if change is not None:
        require_change(to)
        show(change.render(to, change.top if top is None else top))
        return 0
    renderer(to)
    suite = suites.opened(files)
    outputs = Outputs(
        form=to, files=(), look=look(top=top or FINDINGS, verbose=verbose)
    )
    names = [entry.name for entry in suite.entries]
    outputs = suites.prepared(outputs, names, force=False)
    suites.deliver(outputs, suite, plain=True)
    return 0


def _change(files: Sequence[Path]) -> Archived | None:
    """Returns the report on a change, if the files are one.

    Raises:
        BadConfig: it is one of several files.
        CannotLoad: a file cannot be read.
    """
    from vgaudit.cli.output import read
    from vgaudit.errors import BadConfig
    from vgaudit.plain import visible
    from vgaudit.reports.archive import archived

    for file in files:
        found = archived(read(file))
        if found is not None and len(files) > 1:
            raise BadConfig(
                f"{visible(str(file))} is the report of a {found.kind}, which is "
                "shown alone",
                hint="give it as the only file",
            )
        if found is not None:
            return found
    return None
