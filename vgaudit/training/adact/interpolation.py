"""Where net values lie between hinges: the linear map from hinge values to outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.nn import PiecewiseLinear


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The weights B with ``o[p, k] = Σ_h B[p, k, h] · a[k, h]``: two of them non-zero.

    Beyond the hinges of a linear continuation ``share`` leaves [0, 1]; where end
    values hold, it is 0 or 1 and the slope is 0.

    Attributes:
        left: index of the hinge on the left, ``[N, K]``.
        share: weight of the hinge on the right, ``[N, K]``; the left one has the rest.
        inverse_gap: 1 over the distance of the two, ``[N, K]``; 0 where the output
            does not depend on the net.
        hinges: H.
    """

    left: Tensor
    share: Tensor
    inverse_gap: Tensor
    hinges: int

    @classmethod
    def at(cls, net: Tensor, activation: PiecewiseLinear) -> Interpolation:
        """Returns where the values ``net``, ``[N, K]``, lie."""
        units = net.shape[1]
        hinges = activation.hinges.to(net).expand(units, -1).contiguous()
        by_unit = net.t().contiguous()
        inner = hinges[:, 1:-1].contiguous()
        left = torch.searchsorted(inner, by_unit, right=True)
        low, high = hinges.gather(1, left), hinges.gather(1, left + 1)
        share, inverse = (by_unit - low) / (high - low), 1 / (high - low)
        if activation.outside == "clamp":
            inverse = torch.where((share < 0) | (share >= 1), 0.0, inverse)
            share = share.clamp(0, 1)
        return cls(left.t(), share.t(), inverse.t(), hinges.shape[1])

    def values(self, at_hinges: Tensor) -> Tensor:
        """Returns B · a, ``[N, K]``, for ``at_hinges`` = a, ``[K or 1, H]``."""
        low, high = self._ends(at_hinges)
        return low + self.share * (high - low)

    def slopes(self, at_hinges: Tensor) -> Tensor:
        """Returns the derivative of the outputs by the nets, ``[N, K]``."""
        low, high = self._ends(at_hinges)
        return (high - low) * self.inverse_gap

    def spread(self, weights: Tensor) -> Tensor:
        """Returns ``Σ_p weights[p, k] · B[p, k, h]``, ``[K, H]``."""
        total = weights.new_zeros(weights.shape[1], self.hinges)
        total.scatter_add_(1, self.left.t(), (weights * (1 - self.share)).t())
        total.scatter_add_(1, self.left.t() + 1, (weights * self.share).t())
        return total

    def _ends(self, at_hinges: Tensor) -> tuple[Tensor, Tensor]:
        rows = at_hinges.expand(self.left.shape[1], -1)
        index = self.left.t()
        return rows.gather(1, index).t(), rows.gather(1, index + 1).t()
