"""Options about the project: its configuration, its baseline, how strict it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from vgaudit.cli.options import JUDGE, MEASURE


class Preset(StrEnum):
    """How strict the gate is: what fails it."""

    recommended = "recommended"
    strict = "strict"
    all = "all"


def _settings(ctx: typer.Context, path: str | None) -> Any:
    from vgaudit.cli.configured import settings

    return settings(ctx, path)


PresetOption = Annotated[
    Preset | None,
    typer.Option(
        "--preset",
        help="recommended: errors fail. strict: warnings too. all: everything that "
        "is said. --fail-on comes first.",
        rich_help_panel=JUDGE,
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="What is known already: only what is new or worse fails.",
        metavar="FILE",
        rich_help_panel=JUDGE,
    ),
]
AllowNoBaseline = Annotated[
    bool,
    typer.Option(
        "--allow-no-baseline",
        help="Go on where the baseline file is missing.",
        rich_help_panel=JUDGE,
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="A vgaudit.toml, or a pyproject.toml with a table tool.vgaudit; "
        "the nearest one without, none at all with --config none.",
        metavar="FILE",
        callback=_settings,
        is_eager=True,
        rich_help_panel=JUDGE,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Targets to scan at once; as many as cores allow without it.",
        rich_help_panel=MEASURE,
    ),
]
