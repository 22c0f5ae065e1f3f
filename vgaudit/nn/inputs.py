"""What reaches a layer: a range, or a mean and a standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.errors import BadConfig
from vgaudit.nn.activations import activation

Number = float | Tensor
_DIPPING = frozenset({"gelu", "silu", "mish", "hardswish"})


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a layer, for all of them or one by one.

    Attributes:
        center: middle of the range, or mean; a scalar or one per input channel.
        spread: half the range, or standard deviation; of the same shape.
        kind: which of both.
    """

    center: Tensor
    spread: Tensor
    kind: Literal["range", "moments"]

    @classmethod
    def range(cls, low: Number, high: Number) -> Inputs:
        """Returns inputs that lie in [low, high]; scalars or ``[C_in]``."""
        low, high = _tensor(low), _tensor(high)
        return cls._checked((high + low) / 2, (high - low) / 2, "range")

    @classmethod
    def moments(cls, mean: Number, std: Number) -> Inputs:
        """Returns inputs with these moments; scalars or ``[C_in]``."""
        return cls._checked(_tensor(mean), _tensor(std), "moments")

    @classmethod
    def of(cls, given: Inputs | tuple[Number, Number]) -> Inputs:
        """Returns ``given``, where a pair (low, high) is a range."""
        return given if isinstance(given, Inputs) else cls.range(*given)

    @classmethod
    def observed(cls, x: Tensor, *, channel_dim: int = 1) -> Inputs:
        """Returns the moments of a batch of inputs, per channel.

        Use -1 for Linear on sequences and for batch-first recurrent layers.
        """
        rows = x.detach().movedim(channel_dim, 0).flatten(1)
        rows = rows.to(torch.promote_types(x.dtype, torch.float32))
        std, mean = torch.std_mean(rows, dim=1, correction=0)
        return cls._checked(mean, std, "moments")

    @classmethod
    def after_norm(cls, norm: nn.Module) -> Inputs:
        """Returns the moments behind a normalisation: mean β, standard deviation |γ|.

        Raises:
            BadConfig: a layer that does not normalise.
        """
        gamma: Any = getattr(norm, "weight", None)
        beta: Any = getattr(norm, "bias", None)
        kinds = nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm
        if not isinstance(norm, kinds):
            raise BadConfig(
                f"{type(norm).__name__} is no normalisation with known moments",
                hint="use Inputs.observed on a batch",
            )
        if gamma is None:
            return cls.moments(0.0, 1.0)
        gamma = gamma.detach().flatten()
        beta = torch.zeros_like(gamma) if beta is None else beta.detach().flatten()
        return cls.moments(beta.clone(), gamma.abs())

    @classmethod
    def after_activation(cls, name: str, limit: float = math.inf) -> Inputs:
        """Returns the range of an activation's output, where |its input| ≤ ``limit``.

        A limit is what a layer with the denominator ``interval`` promises of its L.

        Raises:
            BadConfig: no such activation, or its output is unbounded.
        """
        row = activation(name)
        low, high = row.low, row.high
        if limit < math.inf:
            function = getattr(torch, row.name, None) or getattr(F, row.name)
            ends = function(torch.tensor([-limit, limit], dtype=torch.float64))
            # Some dip below both ends; none of the table rises above them.
            dips = row.low > -math.inf and row.name in _DIPPING
            low, high = row.low if dips else float(ends[0]), float(ends[1])
        if not math.isfinite(low) or not math.isfinite(high):
            raise BadConfig(
                f"the output of {row.name} has no bound",
                hint="give the limit of its input, or use Inputs.observed",
            )
        return cls.range(low, high)

    def with_dropout(self, p: float) -> Inputs:
        """Returns the inputs behind a dropout in training: 0, or 1/(1 − p) as large."""
        if not 0 <= p < 1:
            raise BadConfig(f"dropout of {p}", hint="give 0 <= p < 1")
        if p == 0:
            return self
        keep = 1 - p
        if self.kind == "moments":
            square = (self.spread.square() + self.center.square()) / keep
            return replace(self, spread=(square - self.center.square()).sqrt())
        return replace(
            self, center=self.center / keep, spread=self.spread / keep
        ).hull()

    def hull(self) -> Inputs:
        """Returns a range that holds 0 too, as padding needs; moments as they are."""
        if self.kind == "moments":
            return self
        low = (self.center - self.spread).clamp(max=0)
        high = (self.center + self.spread).clamp(min=0)
        return Inputs((high + low) / 2, (high - low) / 2, "range")

    @classmethod
    def _checked(
        cls, center: Tensor, spread: Tensor, kind: Literal["range", "moments"]
    ) -> Inputs:
        center, spread = (
            center + torch.zeros_like(spread),
            spread + torch.zeros_like(center),
        )
        fine = bool(center.isfinite().all() & spread.isfinite().all())
        if not fine or bool((spread < 0).any()) or center.dim() > 1:
            raise BadConfig(
                f"inputs with center {_brief(center)} and spread {_brief(spread)}",
                hint="give finite numbers, scalars or one per input, with low <= high",
            )
        return cls(center, spread, kind)


def _tensor(value: Number) -> Tensor:
    tensor = torch.as_tensor(value).detach()
    if tensor.is_floating_point():
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return tensor.to(torch.get_default_dtype())


def _brief(tensor: Tensor) -> str:
    if tensor.numel() == 1:
        return f"{tensor.item():g}"
    return f"of shape {tuple(tensor.shape)}"
