"""The options of ``vgaudit convert`` that no other command has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

CONVERSION = "Conversion"
AUTO_ROTATION = "Auto-rotation"


class TreatmentName(StrEnum):
    """What to convert to."""

    ar = "ar"
    adact = "adact"
    rescale = "rescale"
    plain = "plain"


class LimitTypeName(StrEnum):
    """Whether L is trained, and for what there is one."""

    auto_indep = "auto-indep"
    auto_shared = "auto-shared"
    frozen_indep = "frozen-indep"
    frozen_shared = "frozen-shared"


class LimitSourceName(StrEnum):
    """Where L comes from."""

    calibrated = "calibrated"
    value = "value"
    normal = "normal"
    uniform = "uniform"


class DenominatorName(StrEnum):
    """What D is, the size of a pre-activation over the inputs."""

    moments = "moments"
    interval = "interval"
    xq_min = "xq-min"
    xq_max = "xq-max"


class BorderName(StrEnum):
    """What D is along zero padding."""

    interior = "interior"
    reference = "reference"


class FormName(StrEnum):
    """What the converted model is made of."""

    module = "module"
    graph_module = "graph-module"


class StartName(StrEnum):
    """Shape that a piecewise linear activation starts from."""

    auto = "auto"
    preserve = "preserve"
    unit_slope = "unit-slope"
    relu = "relu"
    leaky = "leaky"
    tanh = "tanh"
    residual = "residual"


To = Annotated[
    TreatmentName,
    typer.Option(
        "--to",
        help="ar: auto-rotated layers. adact: trainable piecewise linear activations. "
        "rescale: calibrated weights, no new layers. plain: ar baked out.",
        rich_help_panel=CONVERSION,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="OUT.safetensors, with OUT.recipe.json beside it; or OUT.pt, the whole "
        "module by pickle. Nothing is written without it.",
        metavar="OUT",
        rich_help_panel=CONVERSION,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        help="Only layers or activations whose path fits the glob; may be repeated.",
        metavar="GLOB",
        rich_help_panel=CONVERSION,
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        help="Not these; may be repeated.",
        metavar="GLOB",
        rich_help_panel=CONVERSION,
    ),
]
Preserve = Annotated[
    bool,
    typer.Option(
        "--preserve",
        help="Keep the function to the last bit (ar with L = D, adact).",
        rich_help_panel=CONVERSION,
    ),
]
Limit = Annotated[
    float | None,
    typer.Option(
        help="L: 99 % of |z| is brought below it. 4 for sigmoid, 2 for tanh … "
        "without it.",
        metavar="L",
        rich_help_panel=CONVERSION,
    ),
]
LimitFrom = Annotated[
    LimitSourceName | None,
    typer.Option(
        help="Of ar. calibrated: fit L to the data, the default. value: L is --limit. "
        "normal: N(5, 1) per unit. uniform: U(2, 8).",
        rich_help_panel=AUTO_ROTATION,
    ),
]
ArType = Annotated[
    LimitTypeName,
    typer.Option(
        "--ar-type",
        help="L trained (auto) or not (frozen), per unit (indep) or layer (shared).",
        rich_help_panel=AUTO_ROTATION,
    ),
]
DenominatorOption = Annotated[
    DenominatorName,
    typer.Option(
        "--denominator",
        help="D. interval bounds |z| on the range of the data; xq-min and xq-max are "
        "the published ones, and bound nothing.",
        rich_help_panel=AUTO_ROTATION,
    ),
]
BorderOption = Annotated[
    BorderName,
    typer.Option(
        "--border",
        help="reference: D varies along zero padding, as in the authors' code.",
        rich_help_panel=AUTO_ROTATION,
    ),
]
ArAxis = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=-1 or NAME=-2: which dimension of a parameter that the model "
        "multiplies with by hand runs over the units; may be repeated.",
        metavar="NAME=AXIS",
        rich_help_panel=AUTO_ROTATION,
    ),
]
Fold = Annotated[
    bool | None,
    typer.Option(
        "--fold/--no-fold",
        help="Write ρ into the weights; without either, where it can be done.",
        rich_help_panel=AUTO_ROTATION,
    ),
]
Centre = Annotated[
    bool | None,
    typer.Option(
        "--centre/--no-centre",
        help="Subtract each unit's mean; where the signal dies, without either.",
        rich_help_panel=CONVERSION,
    ),
]
Refit = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="Fit the next Linear layer so that the function nearly stays; without "
        "either, where nothing is centred and the activation saturates.",
        rich_help_panel=CONVERSION,
    ),
]
Normed = Annotated[
    bool,
    typer.Option(
        "--normed",
        help="Convert layers before a normalization too, where nothing changes.",
        rich_help_panel=CONVERSION,
    ),
]
StartOption = Annotated[
    StartName,
    typer.Option(
        "--start", help="Shape that adact starts from.", rich_help_panel=CONVERSION
    ),
]
Hinges = Annotated[
    int, typer.Option(min=3, help="Of adact.", rich_help_panel=CONVERSION)
]
Shared = Annotated[
    bool,
    typer.Option(
        "--shared",
        help="One function for all channels in adact.",
        rich_help_panel=CONVERSION,
    ),
]
Unfuse = Annotated[
    bool,
    typer.Option(
        "--unfuse",
        help="Open LSTM, GRU and RNN for adact: two to five times slower.",
        rich_help_panel=CONVERSION,
    ),
]
FormOption = Annotated[
    FormName,
    typer.Option(
        "--as",
        help="module: your own modules, edited. graph-module: what torch.fx traces of "
        "them, if it computes the same.",
        rich_help_panel=CONVERSION,
    ),
]
