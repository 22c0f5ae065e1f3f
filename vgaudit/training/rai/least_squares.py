"""Ridge regression and how much of a set of values the labels explain."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-100
"""Keeps the system solvable where the inputs are constant."""


def ridge(
    x: Tensor, y: Tensor, strength: float, *, centred: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns weight ``[out, in]`` and bias of the ridge regression of y on x.

    In float64 and centred, so that the bias is not shrunk. Solved in the space of
    samples where there are fewer of them than inputs; the solution is the same.

    Args:
        x: ``[N, in]``.
        y: ``[N, out]``.
        strength: of the penalty on squared weights, as a part of the mean diagonal
            of the Gram matrix of x.
        centred: False is a regression through the origin; the bias is then 0.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0) * centred, y.mean(0) * centred
    x, y = x - mean_x, y - mean_y
    samples, inputs = x.shape
    penalty = (strength * x.square().sum() / inputs).clamp_min(_LEAST)
    gram = x @ x.T if samples < inputs else x.T @ x
    gram.diagonal().add_(penalty)
    slope = x.T @ _solve(gram, y) if samples < inputs else _solve(gram, x.T @ y)
    weight = slope.T
    return weight, mean_y - weight @ mean_x


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        solved: Tensor = torch.cholesky_solve(right, factor)
        return solved
    # Inputs that do not differ at all but by rounding: the smallest solution.
    smallest: Tensor = torch.linalg.pinv(matrix, hermitian=True) @ right
    return smallest


def explained(values: Tensor, labels: Tensor) -> float | None:
    """Returns the share of the values' variance that the labels explain.

    Of class labels (integers), that is the variance between the classes; of real
    ones, that of a linear regression on them. None where nothing varies.

    Args:
        values: ``[N, …]``.
        labels: ``[N]`` or ``[N, K]``.
    """
    flat = values.detach().reshape(values.shape[0], -1).double()
    flat = flat - flat.mean(0)
    whole = flat.square().sum()
    if not float(whole) > 0:
        return None
    design = _design(labels.to(flat.device))
    design = design - design.mean(0)
    fitted = design @ (torch.linalg.pinv(design) @ flat)
    return float(fitted.square().sum() / whole)


_CLASSES = 64


def _design(labels: Tensor) -> Tensor:
    """Returns indicator columns of few distinct labels, else the labels themselves."""
    columns = labels.reshape(labels.shape[0], -1)
    distinct, classes = torch.unique(columns, dim=0, return_inverse=True)
    if len(distinct) <= min(_CLASSES, max(2, len(columns) // 4)):
        return torch.nn.functional.one_hot(classes.reshape(-1)).double()
    return columns.double()
