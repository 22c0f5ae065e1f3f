"""Symmetric linear systems that may be singular, solved by rank."""

from __future__ import annotations

import torch
from torch import Tensor

RANK = 1e-10
"""Directions with less than this share of the largest eigenvalue are left out."""


def solve(matrix: Tensor, right: Tensor, *, rank: float = RANK) -> Tensor:
    """Returns the X of ``matrix · X = right`` with the smallest scaled norm.

    Rows and columns are scaled to a unit diagonal first, so that neither the units of
    an input nor a small gradient makes a direction look dependent. Of directions that
    are dependent the solution has none.

    Args:
        matrix: symmetric, positive semidefinite, ``[n, n]``.
        right: ``[n]`` or ``[n, m]``, in the range of ``matrix``.
        rank: see ``RANK``.
    """
    diagonal = matrix.diagonal()
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(scale.unsqueeze(1) * matrix * scale)
    kept = values > rank * values[-1].clamp_min(0)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    columns = right.reshape(len(right), -1)
    found = vectors.t() @ (scale.unsqueeze(1) * columns)
    found = scale.unsqueeze(1) * (vectors @ (inverse.unsqueeze(1) * found))
    shaped: Tensor = found.reshape(right.shape)
    return shaped
