"""The settings of the project as defaults of a command's options.

The options of a command take their values from the command line first, and from
here where nothing was typed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import typer

from vgaudit.config import PRESETS, Settings
from vgaudit.config import settings as read
from vgaudit.plain import visible

NONE = "none"


def settings(ctx: typer.Context, path: str | None) -> Settings:
    """Returns the settings of the project, and makes them the command's defaults.

    Args:
        ctx: of the command that is being parsed.
        path: what ``--config`` was given.

    Raises:
        BadConfig: the file or the environment says what cannot be.
    """
    if ctx.resilient_parsing:
        return Settings()
    found = Settings() if path == NONE else read(path, os.environ)
    ctx.default_map = dict(found.values)
    return found


def typed(ctx: typer.Context, name: str) -> bool:
    """Tells whether an option was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def stated(ctx: typer.Context, name: str) -> bool:
    """Tells whether an option was given anywhere: typed, or set by the project."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def settled(ctx: typer.Context, names: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the parameters of a command, with ``--preset`` turned into its level.

    Args:
        ctx: of the command.
        names: of the parameters to return; all of them without.
    """
    given = dict(ctx.params)
    preset = given.get("preset")
    if preset is not None and not typed(ctx, "fail_on"):
        given["fail_on"] = PRESETS[getattr(preset, "value", preset)]
    wanted = set(names)
    return {k: v for k, v in given.items() if not wanted or k in wanted}


def tell(found: Settings, *, quiet: bool) -> None:
    """Says on standard error which file the settings came from."""
    if found.file is not None and not quiet:
        sys.stderr.write(f"vgaudit: settings from {visible(str(found.file))}\n")
