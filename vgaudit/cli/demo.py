"""``vgaudit demo``: a tour without a network: a failing scan, repaired and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import options as o


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the model, the data and the results; it must not "
            "exist. Without it they go when the tour ends.",
            metavar="DIR",
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    debug: o.Debug = False,
) -> int:
    """Take a tour: scan a deep sigmoid net, convert it, train it, scan it again.

    Writes a small model and its data, and runs the real commands on them, under a
    minute on two cores.
    """
    from vgaudit.cli.tour import folder, tour

    with folder(keep) as place:
        return tour(place)
