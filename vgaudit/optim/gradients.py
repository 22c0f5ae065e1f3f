"""From ``.grad`` to the centred gradients of the layers that can move."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.errors import CannotRun
from vgaudit.optim import centring
from vgaudit.optim.centring import Centre
from vgaudit.optim.layers import Layer, Layout
from vgaudit.optim.norms import norms
from vgaudit.optim.sharding import local


@dataclass(frozen=True, slots=True)
class Gradients:
    """The gradients of one step; every key is the position of a slot.

    Attributes:
        values: local part, in ``state_dtype``, negated under ``maximize``, centred.
        norms: L2 norm of each whole gradient, after centring.
        weight_norms: L2 norm of each whole parameter.
        centres: ā by the position of the weight, for weights that move, where it is
            believed: there the bias takes back what the weight's step shifts.
        moving: the layers that take a step, with the members that do.
        refused: layers left alone because a gradient or weight is not finite.
    """

    values: dict[int, Tensor]
    norms: dict[int, float]
    weight_norms: dict[int, float]
    centres: dict[int, Centre]
    moving: tuple[tuple[Layer, tuple[int, ...]], ...]
    refused: tuple[Layer, ...]

    @property
    def members(self) -> list[int]:
        """Every slot that moves."""
        return [index for _, members in self.moving for index in members]


def state_dtype(param: Tensor) -> torch.dtype:
    """Returns the type that averages are kept in: float32 or wider."""
    return torch.promote_types(param.dtype, torch.float32)


def gather(layout: Layout) -> dict[int, Tensor]:
    """Returns the local gradient of each slot that has one.

    Raises:
        CannotRun: a gradient is sparse.
    """
    found: dict[int, Tensor] = {}
    for index, slot in enumerate(layout.slots):
        grad = slot.param.grad
        if grad is None:
            continue
        if grad.layout is not torch.strided:
            raise CannotRun(
                f"the gradient of {slot.name} is sparse",
                hint="build its layer with sparse=False, or give that parameter to "
                "torch.optim.SparseAdam",
            )
        grad = local(grad).to(state_dtype(slot.param))
        found[index] = -grad if layout.option(index, "maximize") else grad
    return found


def centre_and_measure(layout: Layout, *, decay: float) -> Gradients:
    """Returns the gradients of this step, centred where the groups ask for it.

    The new ā of a layer is written to the state only where all of the layer is
    finite, so a batch with NaN leaves every average as it was.

    Args:
        layout: the optimizer's parameters.
        decay: of the averages behind ā.

    Raises:
        CannotRun: a gradient is sparse.
    """
    values = gather(layout)
    pairs = [
        pair
        for layer in layout.layers
        for pair in layer.pairs
        if all(layout.option(index, "centring") for index in pair)
    ]
    centres = {c.weight: c for c in centring.propose(layout, pairs, values, decay)}
    for weight, centre in centres.items():
        values[weight] = centring.centred(
            values[weight], values[centre.bias], centre.mean
        )
    sizes, weights, means, fits = _norms(layout, values, centres)
    standings = {
        weight: centring.standing(
            layout.kept(weight),
            centre,
            mean_norm=means[weight],
            fit_norm=fits[weight],
        )
        for weight, centre in centres.items()
    }
    noise = {
        weight
        for weight, centre in centres.items()
        if centring.is_noise(
            centre,
            centred_norm=sizes[weight],
            mean_norm=means[weight],
            eps=torch.finfo(layout.param(weight).dtype).eps,
        )
    }
    still = noise | {index for index in values if sizes[index] == 0.0}
    finite = {i for i in values if math.isfinite(sizes[i] + weights[i])}
    moving, refused = _sort(layout, values.keys(), finite=finite, still=still)
    for layer, _ in moving:
        for weight, _ in layer.pairs:
            if weight in centres:
                centring.commit(layout, centres[weight], standings[weight])
    believed = {i for i, found in standings.items() if found.agrees}
    kept = {i: centres[i] for _, members in moving for i in members if i in believed}
    return Gradients(values, sizes, weights, kept, moving, refused)


def _sort(
    layout: Layout, present: Collection[int], *, finite: set[int], still: set[int]
) -> tuple[tuple[tuple[Layer, tuple[int, ...]], ...], tuple[Layer, ...]]:
    """Returns the layers that move with their members, and those refused."""
    moving: list[tuple[Layer, tuple[int, ...]]] = []
    refused: list[Layer] = []
    for layer in layout.layers:
        members = [index for index in layer.members if index in present]
        free = tuple(index for index in members if index not in still)
        if not finite.issuperset(members):
            refused.append(layer)
        elif free:
            moving.append((layer, free))
    return tuple(moving), tuple(refused)


def _norms(
    layout: Layout, values: dict[int, Tensor], centres: dict[int, Centre]
) -> tuple[dict[int, float], ...]:
    """Returns the norms of gradients, parameters, means and fits, measured at once."""
    params = [layout.param(index) for index in values]
    means = [centre.mean for centre in centres.values()]
    fits = [centre.fit for centre in centres.values()]
    found = iter(
        norms(
            [*values.values(), *(local(param) for param in params), *means, *fits],
            [*params, *params, *means, *fits] if layout.sharded else (),
        )
    )
    return tuple(
        dict(zip(keys, itertools.islice(found, len(keys)), strict=True))
        for keys in (values, values, centres, centres)
    )
