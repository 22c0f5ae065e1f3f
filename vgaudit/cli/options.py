"""The options of the command line, each declared once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

MODEL, DATA, MEASURE, JUDGE, OUTPUT, TRUST = (
    "Model",
    "Data",
    "Measurement",
    "Judgement",
    "Output",
    "Trust: what may run",
)


class Mode(StrEnum):
    """Of the model during the measurement."""

    train = "train"
    eval = "eval"


class ParallelName(StrEnum):
    """What several processes do with a model."""

    ddp = "ddp"
    fsdp = "fsdp"


class OptimizerName(StrEnum):
    """What will train the model."""

    sgd = "sgd"
    adam = "adam"


class FailOn(StrEnum):
    """The least level of a finding that fails the gate."""

    error = "error"
    warning = "warning"
    info = "info"
    never = "never"


Model = Annotated[
    str,
    typer.Argument(
        help="A file, a folder (of transformers, or a distributed checkpoint), "
        "torchvision:NAME, timm:NAME, hf:NAME, package.module:factory or "
        "file.py:factory; FILE#KEY picks an entry.",
        show_default=False,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="What builds the module for a file of bare weights.",
        metavar="SPEC",
        rich_help_panel=MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A file of weights for an architecture.",
        metavar="FILE",
        rich_help_panel=MODEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help="The entry of a checkpoint that holds the weights.",
        rich_help_panel=MODEL,
    ),
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option(
        help="A keyword argument for a factory; may be repeated.",
        metavar="NAME=VALUE",
        rich_help_panel=MODEL,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Tolerate missing and unexpected keys.",
        rich_help_panel=MODEL,
    ),
]
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        help="The zoo's weights instead of a seeded initialisation.",
        rich_help_panel=MODEL,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="imagefolder:DIR, torchvision:NAME@ROOT, a .npz/.npy/.safetensors/.pt/"
        ".csv file, or file.py:factory. Synthetic inputs without it.",
        metavar="SPEC",
        rich_help_panel=DATA,
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        help="Shape of a synthetic input, 8x3x224x224 or ids=long:4x16:1000; may be "
        "repeated.",
        metavar="SHAPE",
        rich_help_panel=DATA,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        help="auto, cross-entropy, bce-with-logits, mse, l1, nll, ctc, output or "
        "module:function. Random cotangents at the output without labels.",
        metavar="NAME",
        rich_help_panel=DATA,
    ),
]
Batches = Annotated[
    int, typer.Option(min=1, help="How many batches to run.", rich_help_panel=DATA)
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Samples in each; automatic without it.", rich_help_panel=DATA
    ),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        help="train (dropout off) or eval, of the model.", rich_help_panel=MEASURE
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1 …", rich_help_panel=MEASURE)
]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto (the model's own), float32, float64, bfloat16 …",
        rich_help_panel=MEASURE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Of initialisation, synthetic data and cotangents.",
        rich_help_panel=MEASURE,
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        help="Index or key of the output to use, of several.",
        metavar="KEY",
        rich_help_panel=MEASURE,
    ),
]
Unfreeze = Annotated[
    bool,
    typer.Option(
        "--unfreeze", help="Measure frozen parameters too.", rich_help_panel=MEASURE
    ),
]
AllowNonfinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Measure although weights are NaN or infinite.",
        rich_help_panel=MEASURE,
    ),
]
Deep = Annotated[
    bool,
    typer.Option(
        "--deep",
        help="Also attention, number formats, theory, singular values and noise; takes "
        "tens of passes more, and states what each part took.",
        rich_help_panel=MEASURE,
    ),
]
Parallel = Annotated[
    ParallelName,
    typer.Option(
        "--parallel",
        help="Under torchrun: ddp, each process has the model; fsdp, each has a part "
        "of every weight.",
        rich_help_panel=MEASURE,
    ),
]
Static = Annotated[
    bool,
    typer.Option(
        "--static",
        help="Run nothing: judge by the weights and the graph alone.",
        rich_help_panel=MEASURE,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds until the run is stopped.", rich_help_panel=MEASURE
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="Memory the run may use, such as 8G.",
        metavar="SIZE",
        rich_help_panel=MEASURE,
    ),
]
OptimizerOption = Annotated[
    OptimizerName,
    typer.Option(
        help="What will train the model: SGD's step shrinks with the gradient, Adam's "
        "does not.",
        rich_help_panel=JUDGE,
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these rules: a code, the start of one, or a name; may be repeated.",
        metavar="RULE",
        rich_help_panel=JUDGE,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        help="Not these rules; may be repeated.",
        metavar="RULE",
        rich_help_panel=JUDGE,
    ),
]
FailOnOption = Annotated[
    FailOn,
    typer.Option(
        "--fail-on",
        help="The least level of a finding that exits 1.",
        rich_help_panel=JUDGE,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A threshold, vanishing-gradient.sgd_error=-3.5; may be repeated.",
        metavar="RULE.NAME=NUMBER",
        rich_help_panel=JUDGE,
    ),
]
ExitZero = Annotated[
    bool,
    typer.Option(
        "--exit-zero",
        help="Exit 0 where a finding would exit 1.",
        rich_help_panel=JUDGE,
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="Of standard output: text, json, markdown, sarif, junit, github, csv …",
        rich_help_panel=OUTPUT,
    ),
]
ChangeFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="Of standard output: text, json or html.",
        rich_help_panel=OUTPUT,
    ),
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        help="Write a report to a file as well; may be repeated.",
        metavar="FORMAT=PATH",
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace report files that exist.", rich_help_panel=OUTPUT
    ),
]
Top = Annotated[
    int,
    typer.Option(
        min=1, help="Findings to show, the worst first.", rich_help_panel=OUTPUT
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Show every layer and all evidence.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No text report and no progress.", rich_help_panel=OUTPUT
    ),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress.", rich_help_panel=OUTPUT)
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback behind an error.", rich_help_panel=OUTPUT
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run Python that comes with the model.",
        rich_help_panel=TRUST,
    ),
]
TrustPickle = Annotated[
    str,
    typer.Option(
        "--trust-pickle",
        help="Unpickle anything the file holds: --trust-pickle, or "
        "--trust-pickle=sha256:HEX for this very file.",
        metavar="[=sha256:HEX]",
        show_default=False,
        rich_help_panel=TRUST,
    ),
]
ImportPath = Annotated[
    list[str] | None,
    typer.Option(
        help="A folder to append to the import path; may be repeated.",
        metavar="DIR",
        rich_help_panel=TRUST,
    ),
]
RequireSandbox = Annotated[
    bool,
    typer.Option(
        "--require-sandbox",
        help="Fail where the system cannot hold the worker to its limits.",
        rich_help_panel=TRUST,
    ),
]
NoSandbox = Annotated[
    bool,
    typer.Option(
        "--no-sandbox",
        help="Let the worker write anywhere, start programs and use the network.",
        rich_help_panel=TRUST,
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        help="An environment variable that the model's code may see; repeatable.",
        metavar="NAME",
        rich_help_panel=TRUST,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        "--sha256",
        help="Refuse the file unless it has this digest.",
        metavar="HEX",
        rich_help_panel=TRUST,
    ),
]
