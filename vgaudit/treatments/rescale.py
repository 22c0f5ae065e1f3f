"""Folds calibrated statistics into weights and biases: no new layers.

The plain comparator for auto-rotation: b ← b − mean, then (w, b) ← s·(w, b), one
s per layer, so that the 99 % quantile of |z| is the activation's L. Layers go in
forward order, each measured behind those that were treated already.
Source: the idea is that of layer-sequential unit variance, arXiv 1511.06422.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import ACTIVATIONS, AutoRotation, is_hub_conv1d
from vgaudit.treatments import raw_parameters
from vgaudit.treatments.done import Done
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.refit import Refit
from vgaudit.treatments.rotation_options import limit_of, reached
from vgaudit.treatments.statistics import check_alive, survey
from vgaudit.treatments.steps import Step, add_bias, units_of


def rescale(
    model: nn.Module,
    targets: Sequence[LayerTarget],
    batches: Sequence[Batch],
    options: ConvertOptions,
    *,
    centre: bool,
) -> Done:
    """Rescales layers in place; one without a signal is refused.

    Raises:
        BadConfig: the function was to be preserved.
    """
    if options.preserve:
        raise BadConfig(
            "--to rescale changes the function; --preserve cannot hold",
            hint="--to ar --preserve and --to adact --preserve keep it",
        )
    done = Done()
    for target in targets:
        if target.parameter:
            raw_parameters.treat_in(done, model, target, batches, options)
            continue
        steps = with_bias(model, target) if centre else []
        keeper = refitter(model, target, batches, options, centre=centre)
        try:
            edit = _one(model, target, batches, options, centre=centre)
        except CannotRewrite as error:
            done.refuse(target, error)
            done.add(None, steps)
            continue
        done.add(with_refit(edit, keeper), steps)
    return done


def with_bias(model: nn.Module, target: LayerTarget) -> list[Step]:
    """Gives a layer that has none a bias to centre with; returns how to do it again."""
    layer: Any = model.get_submodule(target.path)
    if isinstance(layer, nn.RNNBase) or layer.bias is not None:
        return []
    add_bias(layer, units_of(layer))
    return [Step(kind="bias", path=target.path)]


def _one(
    model: nn.Module,
    target: LayerTarget,
    batches: Sequence[Batch],
    options: ConvertOptions,
    *,
    centre: bool,
) -> Edit:
    found = survey(model, [target], batches)[target.path]
    size = check_alive(found, centred=centre)
    limit = limit_of(target, options)
    layer = model.get_submodule(target.path)
    shift = found.mean if centre else None
    scale = limit / size
    transform_(layer, scale=torch.tensor(scale, dtype=torch.float64), shift=shift)
    return Edit(
        path=target.path,
        kind=type(layer).__name__,
        change=f"weights × {scale:.4g}"
        + (", centred" if centre else "")
        + f": 99 % of |z| below {limit:.4g} (was {size:.3g}){reached(target)}",
        activations=tuple(act.site.key for act in target.acts),
        source=target.acts[0].site.source,
    )


def refitter(
    model: nn.Module,
    target: LayerTarget,
    batches: Sequence[Batch],
    options: ConvertOptions,
    *,
    centre: bool,
) -> Refit | None:
    """Returns what will refit the layer after a target, or None."""
    known = ACTIVATIONS.get(target.kind)
    wanted = options.refit
    if wanted is None:
        wanted = not centre and known is not None and known.bounded
    if not wanted or options.preserve or not target.following or target.calls != 1:
        return None
    follower = model.get_submodule(target.following)
    if not isinstance(follower, nn.Linear) or isinstance(follower, AutoRotation):
        return None
    if follower._parameters.get("bias") is None:
        return None
    return Refit(model, target.following, batches)


def with_refit(edit: Edit, keeper: Refit | None) -> Edit:
    """Refits the next layer, and returns the edit with what came of it."""
    if keeper is None:
        return edit
    return replace(edit, change=f"{edit.change}; {keeper.apply()}")


@torch.no_grad()
def transform_(layer: nn.Module, *, scale: Tensor, shift: Tensor | None) -> None:
    """Makes a layer compute scale·(f − shift), in place.

    Args:
        layer: a Linear or convolution; with a bias where there is a shift.
        scale: a scalar, or one per unit; float64.
        shift: one per unit, or None.
    """
    weight, bias = layer.weight, layer._parameters.get("bias")
    assert isinstance(weight, nn.Parameter)
    weight.copy_(weight.double() * _per_unit(layer, weight, scale))
    if bias is not None:
        wide = bias.double() if shift is None else bias.double() - shift.to(bias.device)
        bias.copy_(wide * scale.to(bias.device))


def _is_transposed(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvTransposeNd)


def _per_unit(layer: nn.Module, weight: Tensor, scale: Tensor) -> Tensor:
    """Returns ``scale`` in a shape that multiplies ``weight``."""
    scale = scale.to(weight.device)
    if scale.dim() == 0 or is_hub_conv1d(type(layer)):
        return scale
    rest = [1] * (weight.dim() - 2)
    if not _is_transposed(layer):
        return scale.view(-1, 1, *rest)
    groups = int(layer.groups)  # type: ignore[arg-type]
    grouped = scale.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return grouped.reshape(weight.shape[0], -1, *rest)
