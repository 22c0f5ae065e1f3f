"""Fits a rotated layer to data: centring, L from a quantile, the measured share.

All of it runs the layer alone, on what reaches it; treat a network layer by layer
from the input on, since every change moves what reaches the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgaudit.errors import BadConfig, CannotRewrite, NothingMeasured
from vgaudit.nn.denominator import ratio
from vgaudit.nn.rotated import LinearRotation, WeightRotation
from vgaudit.nn.rotation import AutoRotation

Batches = Tensor | Iterable[Tensor]
"""What reaches a layer: one batch or several."""

_NOISE = 1e-5
"""A unit whose |f| stays below this share of D is left: the rest is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceedance:
    """How far a rotated layer keeps |z| ≤ L on data.

    Attributes:
        share: share of all |z| above their unit's L.
        worst: the largest such share of one unit.
        rho_min: the smallest ρ.
        rho_max: the largest ρ.
        samples: values seen per unit.
    """

    share: float
    worst: float
    rho_min: float
    rho_max: float
    samples: int


@torch.no_grad()
def center_(layer: AutoRotation, inputs: Batches) -> AutoRotation:
    """Moves the bias so that every unit's f has mean 0 on ``inputs``.

    For stuck or untrained sigmoid networks; it changes the function.

    Args:
        layer: with a bias; recurrent layers are refused.
        inputs: what reaches the layer.

    Raises:
        CannotRewrite: no bias, or a recurrent layer.
        NothingMeasured: no finite value.
    """
    layer = _weighted(layer)
    if layer.bias is None:
        raise CannotRewrite(
            f"{type(layer).__name__} has no bias to centre",
            hint="calibrate without centring",
        )
    total, count = torch.zeros_like(layer.bias, dtype=torch.float64), 0
    for rows in _preactivations(layer, inputs):
        total += rows.sum(0, dtype=torch.float64)
        count += rows.shape[0]
    mean = total / max(count, 1)
    if count == 0 or not bool(mean.isfinite().all()):
        raise NothingMeasured(
            "no finite pre-activation to centre on", hint="check the batches"
        )
    layer.bias.sub_(mean.to(layer.bias.dtype))
    return layer


@torch.no_grad()
def calibrate_(
    layer: AutoRotation,
    inputs: Batches,
    *,
    target: float = 4.0,
    quantile: float = 0.99,
    per: Literal["unit", "layer"] = "unit",
) -> AutoRotation:
    """Sets L so that the quantile of |z| on ``inputs`` is ``target``.

    A unit that hardly varies (|f| below 1e-5 of D) keeps its L.

    Args:
        layer: rotated; recurrent layers are refused.
        inputs: what reaches the layer.
        target: 4 for sigmoid, 2 to 3 for tanh.
        quantile: of |z|.
        per: every unit by itself, or all units of the layer together.

    Raises:
        BadConfig: ``per="unit"`` where one L is shared, or numbers out of range.
        CannotRewrite: a recurrent layer, or ``border="reference"``.
        NothingMeasured: no finite value.
    """
    layer = _weighted(layer)
    shared = layer.ar_limit.dim() == 0
    if not (target > 0 and 0 < quantile <= 1) or (shared and per == "unit"):
        raise BadConfig(
            f"calibration per {per} to {target} at quantile {quantile} with "
            f"L {layer.rotation.limit_type}",
            hint="target > 0, 0 < quantile <= 1; per='layer' where one L is shared",
        )
    turned = _relative(layer, inputs)
    if per == "layer":
        turned = turned.reshape(-1, 1)
    found = _quantile(turned, quantile)
    limit = torch.where(found > _NOISE, target / found, layer.limit)
    layer.set_limit_(limit.reshape(()) if shared else limit.expand(layer.units()))
    return layer


@torch.no_grad()
def exceedance(layer: AutoRotation, inputs: Batches) -> Exceedance:
    """Measures the share of |z| > L on what reaches a layer, and the range of ρ.

    Raises:
        CannotRewrite: a recurrent layer, or ``border="reference"``.
        NothingMeasured: no value.
    """
    layer = _weighted(layer)
    over = (_relative(layer, inputs) > 1).double()
    rho = layer.rho()
    return Exceedance(
        share=over.mean().item(),
        worst=over.mean(0).max().item(),
        rho_min=rho.min().item(),
        rho_max=rho.max().item(),
        samples=over.shape[0],
    )


def _weighted(layer: AutoRotation) -> WeightRotation:
    if not isinstance(layer, WeightRotation) or layer.border_matters():
        raise CannotRewrite(
            f"the pre-activations of {type(layer).__name__} cannot be seen alone",
            hint="fused gates and border='reference' take L as it is given",
        )
    return layer


def _relative(layer: WeightRotation, inputs: Batches) -> Tensor:
    """Returns |f| / D, ``[samples, units]``; |z| is L times that."""
    scale = ratio(torch.ones(()).to(layer.ar_limit), layer.denominator())
    rows = [(f * scale).abs() for f in _preactivations(layer, inputs)]
    turned = torch.cat(rows) if rows else torch.empty(0, 1)
    if turned.numel() == 0 or not bool(turned.isfinite().all()):
        raise NothingMeasured(
            "no finite pre-activation was seen", hint="check the batches"
        )
    return turned


def _preactivations(layer: WeightRotation, inputs: Batches) -> Iterator[Tensor]:
    """Yields f batch by batch, ``[samples, units]``, in float32 at least."""
    for batch in (inputs,) if isinstance(inputs, Tensor) else inputs:
        f: Tensor = layer.classic(batch)
        f = f.to(layer.ar_limit.dtype)
        if not isinstance(layer, LinearRotation):
            f = f.movedim(1, -1)
        yield f.reshape(-1, f.shape[-1])


def _quantile(rows: Tensor, quantile: float) -> Tensor:
    """Returns the quantile of every column: an order statistic, not interpolated."""
    count = rows.shape[0]
    rank = min(count, max(1, round(quantile * count)))
    return rows.kthvalue(rank, 0).values
