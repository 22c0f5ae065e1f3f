"""Centring: an affine map trained as if its inputs had mean zero.

``W x + b = W (x − ā) + (b + W ā)``. In the coordinates (W, c = b + W ā) the gradient
of W is ``g_W − g_b āᵀ`` and that of c is ``g_b``; a step (ΔW, Δc) there is the step
(ΔW, Δc − ΔW ā) of (W, b). For any ā this is an invertible linear change of
coordinates, so what descends there descends here. The ā used is the least-squares
fit ``EMA(g_Wᵀ g_b) / EMA(‖g_b‖²)``, which removes the mean of the layer's input
without looking at the input.

Where normalisation follows the layer, no bias reaches the output: g_b is rounding, the
fit divides by it, and ΔW ā would throw the bias about. One step cannot tell that from
inputs that really are large; several can, because means of inputs stay and rounding
does not. So ā counts as a mean only where the fits of single steps agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgaudit.optim.layers import Layout
from vgaudit.optim.norms import norms
from vgaudit.optim.sharding import sum_over_shards

# A centred gradient below this many rounding units of what was subtracted is
# rounding noise: the layer sees the same input for every sample. Measured in
# float32 on 20 sigmoid layers without signal: 1.7 units.
_NOISE = 4.0

# Below this, 1/‖g_b‖ leaves the range of float32.
_TINY = 1e-37

# Agreement of the fits is ‖EMA(ā)‖² / EMA(‖ā‖²): 1 where all are alike, about 0.05
# where they are random (decay 0.9). Measured, after ten steps: at least 0.25 on
# sigmoid, ReLU and convolutional nets of up to 21 layers, 0.02 to 0.09 in front of
# batch normalisation, in float32 and bfloat16. A mean that is large for an input is
# believed later and less readily, since a single step with it does harm.
_SEEN, _LARGE = 10, 10.0
_AGREES, _AGREES_LARGE = 0.15, 0.5


@dataclass(frozen=True, slots=True)
class Centre:
    """The ā of one step, not yet written to the optimizer's state.

    Attributes:
        weight, bias: positions of the pair among the slots.
        mean: ā, of the shape of one row of the weight ``[n, …]``.
        fit: this step's own ``g_Wᵀ g_b / ‖g_b‖²``, flat ``[n…]``.
        share: of ``fit`` in ā; 0 where ‖g_b‖ is too small to tell.
        square: EMA of ‖g_b‖².
        bias_norm: ‖g_b‖ of this step.
    """

    weight: int
    bias: int
    mean: Tensor
    fit: Tensor
    share: float
    square: float
    bias_norm: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How well the fits behind ā agree.

    Attributes:
        mean_square: EMA of ‖fit‖², weighted as ā is.
        seen: fits so far.
        agrees: ā is a mean of inputs, and not rounding over rounding.
    """

    mean_square: float
    seen: int
    agrees: bool


def propose(
    layout: Layout,
    pairs: Iterable[tuple[int, int]],
    grads: Mapping[int, Tensor],
    decay: float,
) -> list[Centre]:
    """Returns the new ā of each (weight, bias) pair that has both gradients."""
    live = [(w, b) for w, b in pairs if w in grads and b in grads]
    lengths = norms([grads[b] for _, b in live], layout.spread(b for _, b in live))
    rows = [
        _regression(grads[w], grads[b], length)
        for (w, b), length in zip(live, lengths, strict=True)
    ]
    rows = sum_over_shards(rows, layout.spread(w for w, _ in live))
    centres = []
    for (weight, bias), row, length in zip(live, rows, lengths, strict=True):
        mean, share, square = _averaged(layout.kept(weight), row, length, decay)
        mean = mean.view(layout.param(weight).shape[1:])
        centres.append(Centre(weight, bias, mean, row, share, square, length))
    return centres


def _averaged(
    kept: Mapping[str, Any], row: Tensor, length: float, decay: float
) -> tuple[Tensor, float, float]:
    """Returns ā, this fit's share in it, and the EMA of ‖g_b‖², after one more batch.

    The ratio of two EMAs, as a weighted running mean: neither g_Wᵀ g_b nor ‖g_b‖²
    is ever formed in float32, where both underflow at |g| = 1e-20.
    """
    before: Tensor | None = kept.get("input_mean")
    if not _TINY < length < math.inf:
        mean = torch.zeros_like(row) if before is None else before
        return mean, 0.0, kept.get("bias_square", 0.0)
    fresh = (1.0 - decay) * length**2
    square = decay * kept.get("bias_square", 0.0) + fresh
    if before is None:
        return row, 1.0, square
    share = fresh / square
    return torch.lerp(before.flatten(), row, share), share, square


def standing(
    kept: Mapping[str, Any], centre: Centre, *, mean_norm: float, fit_norm: float
) -> Standing:
    """Returns how well the fits agree, this step's included.

    Args:
        kept: the state of the weight, from the steps before.
        centre: of this step.
        mean_norm: ‖ā‖.
        fit_norm: ‖fit‖.
    """
    before: float = kept.get("mean_square", fit_norm**2)
    seen = kept.get("means_seen", 0) + (centre.share > 0.0)
    mean_square = before + (fit_norm**2 - before) * centre.share
    large = mean_square > _LARGE**2 * centre.fit.numel()
    if seen < _SEEN:
        return Standing(mean_square, seen, not large)
    least = _AGREES_LARGE if large else _AGREES
    return Standing(mean_square, seen, mean_norm**2 >= least * mean_square)


def commit(layout: Layout, centre: Centre, found: Standing) -> None:
    """Writes ā, and how well the fits behind it agree, to the optimizer's state."""
    kept = layout.kept(centre.weight)
    kept["input_mean"] = centre.mean
    kept["bias_square"] = centre.square
    kept["mean_square"] = found.mean_square
    kept["means_seen"] = found.seen


def _regression(weight_grad: Tensor, bias_grad: Tensor, length: float) -> Tensor:
    """Returns this process's share of g_Wᵀ g_b / ‖g_b‖² ``[n]``."""
    flat = weight_grad.flatten(1).t()
    if not _TINY < length < math.inf:
        return flat.new_zeros(flat.shape[0])
    return torch.mv(flat, bias_grad / length).div_(length)


def centred(weight_grad: Tensor, bias_grad: Tensor, mean: Tensor) -> Tensor:
    """Returns ``g_W − g_b āᵀ``, in the memory layout of ``g_W``."""
    column = bias_grad.view(-1, *[1] * mean.dim())
    return torch.addcmul(weight_grad, column, mean.unsqueeze(0), value=-1.0)


def mean_response(direction: Tensor, mean: Tensor) -> Tensor:
    """Returns ``D ā`` ``[rows]``: what a step D of the weight does to the mean."""
    return torch.mv(direction.flatten(1), mean.flatten())


def is_noise(
    centre: Centre, *, centred_norm: float, mean_norm: float, eps: float
) -> bool:
    """Returns whether nothing but rounding is left of the weight's gradient.

    Args:
        centre: the pair.
        centred_norm: ‖g_W − g_b āᵀ‖.
        mean_norm: ‖ā‖.
        eps: rounding unit of the gradient's type.
    """
    return centred_norm <= _NOISE * eps * centre.bias_norm * mean_norm
