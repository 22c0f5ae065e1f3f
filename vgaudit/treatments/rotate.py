"""Auto-rotation of a model's layers, and its way back to plain layers.

Each layer is centred where the model is stuck, rotated with D from the moments of
its inputs, given the L at which the 99 % quantile of |z| is the activation's, and
folded: w ← ρ·w, b ← ρ·b. Folding leaves the function as it is and ρ at 1; without
it the weights stay small beside the optimizer's step, and deep networks collapse.
Layers go in forward order, each measured behind those that were treated already.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.nn import (
    AutoRotation,
    Limit,
    auto_rotate,
    bake,
    bake_parameter,
    draw_limit,
    fold_,
    gate_limits,
    rotated_parameters,
)
from vgaudit.treatments import raw_parameters
from vgaudit.treatments.done import Done
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.rescale import refitter, transform_, with_bias, with_refit
from vgaudit.treatments.rotation_options import (
    denominator_of,
    inputs_of,
    limit_of,
    reached,
    source_of,
    type_of,
)
from vgaudit.treatments.statistics import QUANTILE, LayerStatistics, check_alive, survey
from vgaudit.treatments.steps import Step, Turn, without_fast_path

_NOISE = 1e-5
"""A unit whose |f| stays below this share of D keeps the layer's L."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What was done to a layer, and the share of |z| > L on the data."""

    text: str
    exceeding: float | None = None


def rotate(
    model: nn.Module,
    targets: Sequence[LayerTarget],
    batches: Sequence[Batch],
    options: ConvertOptions,
    *,
    centre: bool,
) -> Done:
    """Rotates layers in place; one without a signal is refused."""
    done = Done()
    # Where the function is kept, one pass shows all layers as they will be.
    layers = [target for target in targets if not target.parameter]
    known = survey(model, layers, batches) if options.preserve else {}
    for target in targets:
        if target.parameter:
            raw_parameters.treat_in(done, model, target, batches, options)
            continue
        steps = []
        if centre and not options.preserve:
            steps += with_bias(model, target)
        kind = type(model.get_submodule(target.path)).__name__
        keeper = refitter(model, target, batches, options, centre=centre)
        try:
            found = (
                known.get(target.path) or survey(model, [target], batches)[target.path]
            )
            change = _one(model, target, found, options, centre=centre)
            without_fast_path(model.get_submodule(target.path.rpartition(".")[0]))
        except CannotRewrite as error:
            done.refuse(target, error)
            done.add(None, steps)
            continue
        turn = turn_of(model.get_submodule(target.path))
        steps.append(Step(kind="rotate", path=target.path, turn=turn))
        done.add(with_refit(_edit(target, kind, change), keeper), steps)
    return done


def _one(
    model: nn.Module,
    target: LayerTarget,
    found: LayerStatistics,
    options: ConvertOptions,
    *,
    centre: bool,
) -> _Change:
    """Rotates one layer and returns what was done."""
    layer = model.get_submodule(target.path)
    if options.preserve:
        return _preserving(layer, found, options)
    if isinstance(layer, nn.RNNBase):
        return _gates(layer, found, options)
    return _turned(layer, target, found, options, centre=centre)


def _edit(target: LayerTarget, kind: str, change: _Change) -> Edit:
    first = target.acts[0].site if target.acts else None
    return Edit(
        path=target.path,
        kind=kind,
        change=change.text,
        activations=tuple(act.site.key for act in target.acts),
        source=first.source if first else None,
        exceeding=change.exceeding,
    )


def _preserving(
    layer: nn.Module, found: LayerStatistics, options: ConvertOptions
) -> _Change:
    auto_rotate(
        layer,
        limit=Limit("preserve", type_of(options)),
        denominator=denominator_of(options),
        inputs=inputs_of(found, options),
    )
    trained = "trained" if options.limit_type.startswith("auto") else "frozen"
    return _Change(
        f"auto-rotated with L = D: ρ = 1, the function is kept; L is {trained}"
    )


def _gates(
    layer: nn.RNNBase, found: LayerStatistics, options: ConvertOptions
) -> _Change:
    limit = options.limit
    if limit is None and options.limit_type.endswith("shared"):
        raise CannotRewrite(
            f"VG701 one L for the gates of {type(layer).__name__}, which need 4 and 2",
            hint="give the one with --limit, or use --ar-type auto-indep",
        )
    rotated = auto_rotate(
        layer,
        limit=Limit(gate_limits(layer) if limit is None else limit, type_of(options)),
        denominator=denominator_of(options),
        inputs=inputs_of(found, options),
    )
    folded = _fold(rotated, options)
    limits = "4 and 2" if limit is None else f"{limit:g}"
    return _Change(f"gates auto-rotated, L = {limits}, not calibrated{folded}")


def _turned(
    layer: nn.Module,
    target: LayerTarget,
    found: LayerStatistics,
    options: ConvertOptions,
    *,
    centre: bool,
) -> _Change:
    """Rotates a Linear layer or convolution."""
    size = check_alive(found, centred=centre)
    _check_inputs(found)
    mean = found.mean
    if centre:
        transform_(layer, scale=torch.ones((), dtype=torch.float64), shift=mean)
    wanted, source = limit_of(target, options), source_of(options)
    drawn = _first_limit(target.path, len(mean), wanted, options)
    rotated = auto_rotate(
        layer,
        limit=Limit(drawn, type_of(options)),
        denominator=denominator_of(options),
        inputs=inputs_of(found, options),
    )
    share = None
    if not rotated.border_matters():
        rows = torch.cat(found.sample).double()
        rows = (rows - mean if centre else rows).abs()
        turned = rows / rotated.denominator().double()
        share = float((turned > 1).double().mean())
        if source == "calibrated":
            _calibrate(rotated, turned, wanted)
    folded = _fold(rotated, options)
    how = f"auto-rotated{folded}{', centred' if centre else ''}"
    if source == "calibrated":
        figures = f"99 % of |z| below {wanted:.4g} (was {size:.3g})"
    elif source == "value":
        figures = f"D {options.denominator}, L = {wanted:g}"
    else:
        figures = f"D {options.denominator}, L drawn ({source})"
    figures += reached(target)
    if share is None:
        return _Change(f"{how}: {figures}, D along the border as the authors'")
    return _Change(f"{how}: {figures}, |z| > L in {100 * share:.1f} %", share)


def _check_inputs(found: LayerStatistics) -> None:
    """Refuses inputs whose squares, of which D is made, are no float32.

    Raises:
        CannotRewrite: they are that large.
    """
    largest = max(abs(found.inputs.low), abs(found.inputs.high))
    if not largest < torch.finfo(torch.float32).max ** 0.5:
        raise CannotRewrite(
            f"VG701 {found.path}: its inputs reach {largest:.3g}, whose squares "
            "overflow in float32",
            hint="treat what grows before it (`vgaudit scan` names it), or leave the "
            "layer out with --skip",
        )


def _first_limit(
    path: str, units: int, wanted: float, options: ConvertOptions
) -> float | Tensor:
    """Returns L as it is before any calibration; a draw depends on the path alone."""
    source = source_of(options)
    if source in ("calibrated", "value"):
        return wanted if source == "value" else 1.0
    generator = torch.Generator().manual_seed(zlib.crc32(path.encode()))
    count = 1 if options.limit_type.endswith("shared") else units
    drawn = draw_limit(source, count, generator=generator)  # type: ignore[arg-type]
    return drawn.reshape(()) if options.limit_type.endswith("shared") else drawn


def _fold(layer: AutoRotation, options: ConvertOptions) -> str:
    """Folds ρ into the weights where that is wanted, and says so."""
    wanted = options.fold
    if wanted is None:
        wanted = not layer.border_matters()
    if not wanted:
        return ", not folded"
    fold_(layer)
    return ", folded"


@torch.no_grad()
def _calibrate(layer: AutoRotation, turned: Tensor, limit: float) -> None:
    """Sets L from |f| / D, ``[rows, units]``: its 99 % quantile times ρ·D is the limit.

    One L a unit, or one for the layer where it is shared. A unit that hardly varies
    takes the layer's.
    """
    whole = turned.flatten()
    overall = whole.kthvalue(max(1, round(QUANTILE * whole.numel()))).values
    if layer.ar_limit.dim() == 0:
        layer.set_limit_(limit / overall)
        return
    rank = max(1, round(QUANTILE * turned.shape[0]))
    found = turned.kthvalue(rank, 0).values
    layer.set_limit_(limit / torch.where(found > _NOISE, found, overall))


def turn_of(layer: nn.Module) -> Turn:
    """Returns how a layer is rotated, without its tensors."""
    assert isinstance(layer, AutoRotation)
    return Turn.of(layer.rotation, scalar_inputs=layer.ar_center.dim() == 0)


def rotated_layers(model: nn.Module) -> dict[str, str]:
    """Returns what is auto-rotated in a model: path → kind, each once."""
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        if isinstance(module, AutoRotation):
            found[path] = type(module).__name__
        for name in rotated_parameters(module):
            found[f"{path}.{name}".lstrip(".")] = "Parameter"
    return found


def make_plain(model: nn.Module, paths: Sequence[str]) -> tuple[list[Edit], list[Step]]:
    """Turns what is auto-rotated back into plain weights: ρ·w and ρ·b."""
    edits, steps = [], []
    for path in paths:
        kind = rotated_layers(model)[path]
        if kind == "Parameter":
            owner, _, name = path.rpartition(".")
            bake_parameter(model.get_submodule(owner), name)
            change = "baked into a plain parameter"
        else:
            layer = model.get_submodule(path)
            assert isinstance(layer, AutoRotation)
            bake(layer)
            change = f"baked into a plain {type(layer).__name__}"
        edits.append(Edit(path=path, kind=kind, change=change))
        steps.append(Step(kind="bake", path=path))
    return edits, steps
