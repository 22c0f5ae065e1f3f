"""The options of ``vgaudit retrain`` alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli.options import ParallelName

TRAINING, HELD_OUT, RUN = "Training", "Validation and controls", "Checkpoints"


class MethodName(StrEnum):
    """What to train with."""

    sdagd = "sdagd"
    rai = "rai"
    adact = "adact"
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class SolverName(StrEnum):
    """How adact trains."""

    gradient = "gradient"
    classic = "classic"


class ScheduleName(StrEnum):
    """Of the learning rate."""

    auto = "auto"
    warmup_linear = "warmup-linear"
    cosine = "cosine"
    constant = "constant"
    step = "step"


class AmpName(StrEnum):
    """Half precision on CUDA."""

    off = "off"
    bf16 = "bf16"
    fp16 = "fp16"


With = Annotated[
    MethodName,
    typer.Option(
        "--with",
        help="sdagd: steps of a fixed relative length for each layer. rai: relaxed "
        "activation identity. adact: trainable piecewise linear activations. adam, "
        "adamw, sgd: as in torch.",
        rich_help_panel=TRAINING,
    ),
]
Solver = Annotated[
    SolverName,
    typer.Option(
        help="classic: adact's closed-form steps, for one hidden layer.",
        rich_help_panel=TRAINING,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="OUT.safetensors: weights, and for a converted model its recipe; or "
        "OUT.pt, the whole module by pickle. Nothing is written without it.",
        metavar="OUT",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Passes over the data; 10 without it, or the method's own number.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Samples of one step; 64 without it.", rich_help_panel=TRAINING
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        min=1,
        help="Parts in which a step's batch is computed, to save memory.",
        rich_help_panel=TRAINING,
    ),
]
Lr = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; of sdagd the relative radius. The method's own without "
        "it: 0.1/√L for L layers, 1e-3 for adam, 0.1 for sgd.",
        rich_help_panel=TRAINING,
    ),
]
WeightDecay = Annotated[
    float,
    typer.Option(
        min=0, help="Limits of ar and values of adact stay.", rich_help_panel=TRAINING
    ),
]
Momentum = Annotated[float, typer.Option(help="Of sgd.", rich_help_panel=TRAINING)]
Schedule = Annotated[
    ScheduleName,
    typer.Option(
        help="auto is warmup-linear; step drops to a tenth at half and again at "
        "three quarters.",
        rich_help_panel=TRAINING,
    ),
]
Warmup = Annotated[
    float,
    typer.Option(help="Share of all steps.", rich_help_panel=TRAINING),
]
Clip = Annotated[
    float | None,
    typer.Option(
        help="Largest L2 norm of the whole gradient.", rich_help_panel=TRAINING
    ),
]
Amp = Annotated[
    AmpName,
    typer.Option(help="Half precision, on CUDA.", rich_help_panel=TRAINING),
]
Parallel = Annotated[
    ParallelName,
    typer.Option(
        help="Of several processes, as torchrun starts them: ddp gives each a copy of "
        "the model, fsdp spreads it over them.",
        rich_help_panel=TRAINING,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--setting",
        help="Of the method alone, such as kappa=100 or mode=sweep; may be repeated.",
        metavar="NAME=VALUE",
        rich_help_panel=TRAINING,
    ),
]
ValidSplit = Annotated[
    float,
    typer.Option(
        help="Share of the samples held out, by the seed.", rich_help_panel=HELD_OUT
    ),
]
ValidData = Annotated[
    str | None,
    typer.Option(
        help="Data to validate on instead.", metavar="SPEC", rich_help_panel=HELD_OUT
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs without a better one after which to stop.",
        rich_help_panel=HELD_OUT,
    ),
]
Control = Annotated[
    list[str] | None,
    typer.Option(
        help="Train a copy from the same start, with the same budget: adam, adamw, "
        "sgd, centred-adam, sdagd or readout; adam:lr=0.003 sets it; may be repeated.",
        metavar="NAME",
        rich_help_panel=HELD_OUT,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an interrupted training; from the beginning if there is none.",
        rich_help_panel=RUN,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of checkpoints; OUT.run without it, removed in the end.",
        metavar="DIR",
        rich_help_panel=RUN,
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        min=0,
        help="Seconds between two checkpoints: what a crash can cost.",
        rich_help_panel=RUN,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Seconds until the training is stopped; --resume continues it.",
        rich_help_panel=RUN,
    ),
]
