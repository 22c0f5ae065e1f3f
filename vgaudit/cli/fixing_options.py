"""The options of ``vgaudit fix`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REPAIR = "Repair"

Budget = Annotated[
    str,
    typer.Option(
        help="Time for all trainings together: 90s, 10m, 2h. The number of steps is "
        "measured to fit, and is the same for every training.",
        metavar="TIME",
        rich_help_panel=REPAIR,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=3,
        help="Fresh trainings of the best treatment and of each best control.",
        rich_help_panel=REPAIR,
    ),
]
Trials = Annotated[
    int,
    typer.Option(
        min=1,
        help="Treatments to search at most; as many learning rates of the plain model "
        "and as many random repairs are tried beside them.",
        rich_help_panel=REPAIR,
    ),
]
MostSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Optimizer steps of one training at most; 30 passes over the data "
        "without it.",
        rich_help_panel=REPAIR,
    ),
]
NoTrial = Annotated[
    bool,
    typer.Option(
        "--no-trial",
        help="Call a model healthy that no finding fails, without training it. Without "
        "this, a tenth of the budget at most shows whether it learns as it came, and "
        "it is treated if it does not.",
        rich_help_panel=REPAIR,
    ),
]
ValidSplit = Annotated[
    float,
    typer.Option(
        help="Share of the samples held out: half of it chooses, half judges.",
        rich_help_panel=REPAIR,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an interrupted repair after its last finished training.",
        rich_help_panel=REPAIR,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of finished trainings; OUT.run without it.",
        metavar="DIR",
        rich_help_panel=REPAIR,
    ),
]
