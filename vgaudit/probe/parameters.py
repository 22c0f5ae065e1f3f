"""The gradients of parameters: their norms, exact zeros, and what is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.probe import norms

Figure = Tensor | float


class InParts(Exception):
    """More came to a parameter whose gradient had been looked at and let go."""


@dataclass(slots=True)
class ParameterFigures:
    """Gradient of one parameter on one batch; ``zeros`` is NaN if not counted."""

    norm: float
    zeros: float
    nonfinite: float


class Gradients:
    """Figures of the gradients that one batch brings to the parameters.

    Args:
        zeros: count the exact zeros too, which costs more than the norm.
        hold: keep the gradients until ``settle``: what comes to a parameter in
            several parts (from checkpointed segments) is summed before it is looked
            at, and what is not finite is counted only where a norm says so.
    """

    def __init__(self, *, zeros: bool, hold: bool = False) -> None:
        self._zeros, self._hold = zeros, hold
        self._held: dict[str, Tensor] = {}
        self._figures: dict[str, list[tuple[Figure, Figure, Figure]]] = {}
        self._near: Figure = 1.0

    def add(self, name: str, gradient: Tensor) -> None:
        """Takes a gradient, dense or sparse, without waiting for its device."""
        if self._hold:
            before = self._held.get(name)
            # A copy: it may become ``.grad``, which clipping changes in place.
            new = gradient.detach().clone() if before is None else before + gradient
            self._held[name] = new
            return
        self._measure(name, gradient)

    def take(self, name: str, gradient: Tensor) -> None:
        """Takes a whole gradient that is let go afterwards.

        Raises:
            InParts: it was not the whole: there had been one before.
        """
        if name in self._figures:
            raise InParts(name)
        self._measure(name, gradient)

    def keep(self, name: str, gradient: Tensor) -> None:
        """Takes a whole gradient that nobody changes before ``settle``."""
        self._held[name] = gradient

    def settle(self) -> None:
        """Looks at the gradients that are held, with one wait for the device."""
        looks = [figure for held in self._held.values() for figure in self._look(held)]
        read = norms.read(looks)
        for place, (name, held) in enumerate(self._held.items()):
            size, zeros = read[2 * place : 2 * place + 2]
            self._note(name, size, zeros, _nonfinite(held, size))
        self._held.clear()

    def read(self, *, scale: float = 1.0) -> dict[str, ParameterFigures]:
        """Returns the figures by parameter.

        Of several backward passes of one batch the norms and the counts of what is
        not finite are joined; the zeros are those of the last.

        Args:
            scale: divides the norms.
        """
        self.settle()
        rows = [(name, row) for name, rows in self._figures.items() for row in rows]
        read = iter(norms.read([figure for _, row in rows for figure in row]))
        found: dict[str, ParameterFigures] = {}
        for name, _ in rows:
            size, zeros, bad = next(read), next(read), next(read)
            before = found.get(name, ParameterFigures(0.0, 0.0, 0.0))
            found[name] = ParameterFigures(
                norm=math.hypot(before.norm, size / scale),
                zeros=zeros,
                nonfinite=before.nonfinite + bad,
            )
        return found

    def _measure(self, name: str, gradient: Tensor) -> None:
        size, zeros = self._look(gradient)
        self._note(name, size, zeros, _nonfinite(gradient, size))

    def _look(self, gradient: Tensor) -> tuple[Figure, Figure]:
        """Returns norm and number of exact zeros; NaN where these are not counted."""
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        self._near = norms.norm_of_values(values.detach(), self._near)
        if not self._zeros:
            return self._near, math.nan
        zeros = gradient.numel() - torch.count_nonzero(values)
        return self._near, zeros.double()

    def _note(self, name: str, size: Figure, zeros: Figure, bad: Figure) -> None:
        self._figures.setdefault(name, []).append((size, zeros, bad))


def _nonfinite(gradient: Tensor, size: Figure) -> Figure:
    """Returns how many values are not finite; their norm may tell without a look."""
    if isinstance(size, float) and math.isfinite(size):
        return 0.0
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.isfinite(values).logical_not().sum().double()
