"""``vgaudit doctor``: whether this machine can run an audit."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit.cli import options as o


def doctor(
    format: Annotated[
        str, typer.Option("--format", help="text or json.", rich_help_panel=o.OUTPUT)
    ] = "text",
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
) -> int:
    """Examine the environment: Python, PyTorch, devices, sandbox, folders.

    Exits 3 where something that every audit needs is missing.
    """
    from vgaudit.cli.examination import examined, exit_code, words
    from vgaudit.cli.output import show
    from vgaudit.errors import BadConfig
    from vgaudit.plain import to_json, visible

    if format not in ("text", "json"):
        raise BadConfig(f"unknown format '{visible(format)}'", hint="known: text, json")
    found = examined(silent=no_progress)
    show(f"{to_json(found, indent=1)}\n" if format == "json" else words(found))
    return exit_code(found)
