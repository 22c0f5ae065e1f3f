"""The largest singular value of an operator that can only be applied.

Golub–Kahan bidiagonalisation is the power iteration on AᵀA that keeps what it has
seen: after k applications of A and of Aᵀ its estimate is at least as good as that of k
power steps, and for a dense spectrum, where those crawl, far better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.probe import norms

Apply = Callable[[Tensor], Tensor]

STEPS = 30
_TOLERANCE = 1e-3
_SETTLED = 3e-5
"""Change in one step at which the estimate has settled, well below the tolerance."""


@dataclass(frozen=True, slots=True)
class Largest:
    """An estimate from below, and whether it stopped changing."""

    value: float
    converged: bool


def largest_singular_value(
    forward: Apply, backward: Apply, start: Tensor, *, steps: int = STEPS
) -> Largest:
    """Returns the largest singular value of A.

    Args:
        forward: x ↦ A x, on vectors.
        backward: y ↦ Aᵀ y.
        start: a random vector on the side of x.
        steps: applications of each at most.
    """
    right = [start / _size(start)]
    left: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    history: list[float] = []
    for _ in range(steps):
        u = _apart(forward(right[-1]), left)
        alphas.append(_size(u))
        history.append(_top(alphas, betas))
        if not alphas[-1] or _settled(history):
            return Largest(history[-1], True)
        left.append(u / alphas[-1])
        v = _apart(backward(left[-1]), right)
        betas.append(_size(v))
        if betas[-1] <= torch.finfo(v.dtype).eps * alphas[0]:
            return Largest(history[-1], True)
        right.append(v / betas[-1])
    change = abs(history[-1] - history[-2]) if len(history) > 1 else history[-1]
    return Largest(history[-1], change < _TOLERANCE / 10 * history[-1])


def _settled(history: list[float]) -> bool:
    """Tells whether the last three steps changed next to nothing."""
    if len(history) < 4:
        return False
    return history[-1] - history[-4] <= 3 * _SETTLED * history[-1]


def _top(alphas: list[float], betas: list[float]) -> float:
    """Returns the norm of the upper bidiagonal matrix, scaled against underflow."""
    unit = max(alphas) or 1.0
    matrix = torch.diag(torch.tensor(alphas, dtype=torch.float64) / unit)
    if betas:
        matrix += torch.diag(torch.tensor(betas, dtype=torch.float64) / unit, 1)
    return float(torch.linalg.matrix_norm(matrix, 2)) * unit


def _apart(vector: Tensor, others: list[Tensor]) -> Tensor:
    """Returns the part of a vector that is orthogonal to the others.

    Twice: once leaves the rounding of the first projection.
    """
    if not others:
        return vector
    basis = torch.stack(others)
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector


def _size(vector: Tensor) -> float:
    return norms.read([norms.norm(vector)])[0]
