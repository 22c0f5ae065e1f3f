"""Means of an activation over a Gaussian pre-activation, by quadrature.

Mean-field theory takes the pre-activations of a wide layer to be Gaussian, so what
an activation does to signal and gradient are three integrals over N(mean, var).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# The trapezoid rule over ±10 deviations: exact to rounding for smooth functions,
# to 1e-5 across the kink of a ReLU.
_POINTS = 8001
_REACH = 10.0

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "atan": torch.atan,
    "erf": torch.erf,
}


@dataclass(frozen=True, slots=True)
class Integrals:
    """E φ(z), E φ(z)² and E φ′(z)² for z ~ N(mean, var)."""

    mean: float
    square: float
    slope_square: float


def known(name: str) -> bool:
    """Tells whether an activation of this name can be integrated."""
    return name in _FUNCTIONS


@lru_cache(maxsize=4096)
def integrals(name: str, mean: float, var: float) -> Integrals:
    """Returns the means of an activation over N(mean, var).

    Args:
        name: canonical name of the activation, with its usual arguments.
        mean: of the pre-activation.
        var: of the pre-activation.
    """
    with torch.enable_grad():
        points = torch.linspace(
            -_REACH, _REACH, _POINTS, dtype=torch.float64, device="cpu"
        )
        z = (mean + math.sqrt(var) * points).requires_grad_()
        out = _FUNCTIONS[name](z)
        (slope,) = torch.autograd.grad(out.sum(), z)
    weight = torch.exp(-points.square() / 2)
    weight = weight / weight.sum()
    out = out.detach()
    return Integrals(
        mean=float((weight * out).sum()),
        square=float((weight * out * out).sum()),
        slope_square=float((weight * slope * slope).sum()),
    )


@lru_cache(maxsize=256)
def critical_gain(name: str, var: float) -> float:
    """Returns the weight gain at which ‖δ‖ keeps its size: 1 / E φ′(z)².

    NaN where the activation has no slope there.
    """
    slope = integrals(name, 0.0, var).slope_square
    return 1 / slope if slope > 0 else math.nan
