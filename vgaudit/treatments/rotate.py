"""Auto-rotation of a model's layers, and its way back to plain layers.

Each layer is centred where the model is stuck, rotated with D from the moments of
its inputs, given the L at which the 99 % quantile of |z| is the activation's, and
folded: w ← ρ·w, b ← ρ·b. Folding leaves the function as it is and ρ at 1; without
it the weights stay small beside the optimizer's step, and deep networks collapse.
Layers go in forward order, each measured behind those that were treated already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.nn import AutoRotation, Inputs, Limit, auto_rotate, bake, fold_
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.rescale import (
    Done,
    limit_of,
    refitter,
    transform_,
    with_bias,
    with_refit,
)
from vgaudit.treatments.statistics import QUANTILE, LayerStatistics, check_alive, survey
from vgaudit.treatments.steps import Step, Turn, without_fast_path

_NOISE = 1e-5
"""A unit whose |f| stays below this share of D keeps the layer's L."""


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
    known = survey(model, targets, batches) if options.preserve else {}
    for target in targets:
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
) -> str:
    """Rotates one layer and returns what was done."""
    layer = model.get_submodule(target.path)
    if options.preserve:
        return _preserving(layer, found)
    if isinstance(layer, nn.RNNBase):
        return _gates(layer, found, options)
    return _calibrated(layer, found, limit_of(target.kind, options), centre)


def _edit(target: LayerTarget, kind: str, change: str) -> Edit:
    first = target.acts[0].site if target.acts else None
    return Edit(
        path=target.path,
        kind=kind,
        change=change,
        activations=tuple(act.site.key for act in target.acts),
        source=first.source if first else None,
    )


def _preserving(layer: nn.Module, found: LayerStatistics) -> str:
    auto_rotate(layer, limit=Limit("preserve"), inputs=moments(found))
    return "auto-rotated with L = D: ρ = 1, the function is kept; L is trained"


def _gates(layer: nn.RNNBase, found: LayerStatistics, options: ConvertOptions) -> str:
    rotated = auto_rotate(layer, limit=options.limit, inputs=moments(found))
    fold_(rotated)
    limits = "4 and 2" if options.limit is None else f"{options.limit:g}"
    return f"gates auto-rotated, L = {limits}, not calibrated; folded"


def _calibrated(
    layer: nn.Module, found: LayerStatistics, limit: float, centre: bool
) -> str:
    size = check_alive(found, centred=centre)
    mean = found.mean
    if centre:
        transform_(layer, scale=torch.ones((), dtype=torch.float64), shift=mean)
    rotated = auto_rotate(layer, limit=1.0, inputs=moments(found))
    rows = torch.cat(found.sample).double()
    rows = (rows - mean if centre else rows).abs()
    share = _set_limit(rotated, rows, limit)
    fold_(rotated)
    return (
        f"auto-rotated and folded{', centred' if centre else ''}: 99 % of |z| below "
        f"{limit:g} (was {size:.3g}), |z| > L in {100 * share:.1f} %"
    )


@torch.no_grad()
def _set_limit(layer: AutoRotation, rows: Tensor, limit: float) -> float:
    """Sets L of every unit from |f|, ``[rows, units]``; returns the share above L."""
    turned = rows / layer.denominator().double()
    rank = max(1, round(QUANTILE * turned.shape[0]))
    found = turned.kthvalue(rank, 0).values
    whole = turned.flatten()
    overall = whole.kthvalue(max(1, round(QUANTILE * whole.numel()))).values
    found = torch.where(found > _NOISE, found, overall)
    layer.set_limit_(limit / found)
    return float((turned > 1).double().mean())


def moments(found: LayerStatistics) -> Inputs:
    """Returns what reaches a layer, per input channel."""
    mean, std = found.inputs.moments()
    return Inputs.moments(mean.float(), std.float())


def turn_of(layer: nn.Module) -> Turn:
    """Returns how a layer is rotated, without its tensors."""
    assert isinstance(layer, AutoRotation)
    how = layer.rotation
    return Turn(
        denominator=asdict(how.denominator),
        inputs=how.inputs,
        scalar_inputs=layer.ar_center.dim() == 0,
        limit_type=how.limit_type,
        storage=how.storage,
    )


def rotated_layers(model: nn.Module) -> dict[str, AutoRotation]:
    """Returns the auto-rotated layers of a model by path, each once."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, AutoRotation)
    }


def make_plain(model: nn.Module, paths: Sequence[str]) -> tuple[list[Edit], list[Step]]:
    """Turns auto-rotated layers back into plain ones with the weights ρ·w and ρ·b."""
    edits, steps = [], []
    for path in paths:
        layer = model.get_submodule(path)
        assert isinstance(layer, AutoRotation)
        kind = type(layer).__name__
        bake(layer)
        change = f"baked into a plain {type(layer).__name__}"
        edits.append(Edit(path=path, kind=kind, change=change))
        steps.append(Step(kind="bake", path=path))
    return edits, steps
