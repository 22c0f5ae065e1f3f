"""``vgaudit convert MODEL --to TREATMENT``: rewrite, prove, write."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vgaudit.cli import options as o

CONVERSION = "Conversion"


class TreatmentName(StrEnum):
    """What to convert to."""

    ar = "ar"
    adact = "adact"
    rescale = "rescale"
    plain = "plain"


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


def convert(
    ctx: typer.Context,
    model: o.Model,
    to: To,
    out: Out = None,
    layers: Layers = None,
    skip: Skip = None,
    preserve: Preserve = False,
    limit: Limit = None,
    centre: Centre = None,
    refit: Refit = None,
    normed: Normed = False,
    start: StartOption = StartName.auto,
    hinges: Hinges = 9,
    shared: Shared = False,
    arch: o.Arch = None,
    weights: o.Weights = None,
    key: o.Key = None,
    model_arg: o.ModelArg = None,
    allow_missing: o.AllowMissing = False,
    pretrained: o.Pretrained = False,
    data: o.Data = None,
    input: o.Input = None,
    loss: o.Loss = None,
    batches: o.Batches = 4,
    batch_size: o.BatchSize = None,
    mode: o.ModeOption = o.Mode.train,
    device: o.Device = "cpu",
    dtype: o.Dtype = "auto",
    seed: o.Seed = 0,
    output: o.OutputOption = None,
    unfreeze: o.Unfreeze = False,
    timeout: o.Timeout = 1800.0,
    max_memory: o.MaxMemory = None,
    optimizer: o.OptimizerOption = o.OptimizerName.sgd,
    select: o.Select = None,
    ignore: o.Ignore = None,
    set: o.Set = None,
    format: o.Format = "text",
    force: o.Force = False,
    top: o.Top = 12,
    quiet: o.Quiet = False,
    no_progress: o.NoProgress = False,
    debug: o.Debug = False,
    allow_code: o.AllowCode = False,
    trust_pickle: o.TrustPickle = "",
    import_path: o.ImportPath = None,
    sha256: o.Sha256 = None,
    require_sandbox: o.RequireSandbox = False,
    no_sandbox: o.NoSandbox = False,
    env: o.Env = None,
) -> int:
    """Treat a model against vanishing gradients, and prove what changed.

    Says what was converted, what was not and why, how far the outputs moved, and
    what the same scan says before and after. Exits 3 where nothing was converted.
    """
    from vgaudit.cli.output import renderer, show
    from vgaudit.reports import comparison as words

    renderer(format)
    _check_out(out, inputs=(model, weights, data), force=force)
    done, compared = _convert(ctx)
    done = words.with_notes(done, words.advice(done, compared))
    if not quiet or format != "text":
        show(words.render_conversion(done, compared, form=format, top=top))
    return 0


def _check_out(
    out: Path | None, *, inputs: tuple[str | None, ...], force: bool
) -> None:
    """Refuses a place that cannot be written, before any work."""
    from vgaudit.cli.output import check_writable
    from vgaudit.errors import BadConfig
    from vgaudit.plain import visible

    if out is None:
        return
    if out.suffix not in (".safetensors", ".pt"):
        raise BadConfig(
            f"-o {visible(str(out))}: the name must end in .safetensors or .pt",
            hint="weights with a recipe, or the whole module by pickle",
        )
    check_writable(out, inputs=inputs, force=force)
    if out.suffix == ".safetensors":
        recipe = out.with_name(f"{out.stem}.recipe.json")
        check_writable(recipe, inputs=inputs, force=force)


def _convert(ctx: typer.Context) -> tuple[Any, Any]:
    """Runs the worker; returns the conversion and the comparison of both scans."""
    import shlex

    from vgaudit.cli import jobs
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.compare import compare
    from vgaudit.judge import judge
    from vgaudit.reports.comparison import parse_conversion

    given = {**ctx.params, "allow_nonfinite": False, "exit_zero": True}
    given["fail_on"] = o.FailOn.error
    policy = jobs.policy(given, ctx.obj)
    job = {
        "scan": jobs.scan_job(given),
        "options": _options(given),
        "output": None if given["out"] is None else str(given["out"]),
        "force": given["force"],
        "command": shlex.join(["vgaudit", *ctx.obj]),
    }
    with Phases(silent=given["no_progress"], quiet=given["quiet"]) as phases:
        answer = run("convert", job, limits=jobs.limits(given), watcher=phases)
    done = parse_conversion(answer)
    assert done.before is not None
    assert done.after is not None
    return done, compare(judge(done.before, policy), judge(done.after, policy))


def _options(given: dict[str, Any]) -> Any:
    from vgaudit.conversion import ConvertOptions

    return ConvertOptions(
        to=given["to"].value,
        layers=tuple(given["layers"] or ()),
        skip=tuple(given["skip"] or ()),
        preserve=given["preserve"],
        limit=given["limit"],
        centre=given["centre"],
        refit=given["refit"],
        normed=given["normed"],
        start=given["start"].value,
        hinges=given["hinges"],
        shared=given["shared"],
    )
