"""L, the size that a rotated pre-activation is to keep, and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vgaudit.errors import BadConfig

LimitType = Literal["auto_indep", "auto_shared", "frozen_indep", "frozen_shared"]
Storage = Literal["softplus", "direct", "literal"]


@dataclass(frozen=True, slots=True)
class Limit:
    """L of a layer.

    Attributes:
        value: one number, one per unit, or ``preserve``: L = D, so that ρ = 1
            and the layer's function is kept.
        type: ``auto`` is trained, ``frozen`` is not; ``indep`` is one per unit,
            ``shared`` one per layer.
        storage: ``softplus`` keeps softplus⁻¹(L), so that L stays positive and
            begins at exactly ``value`` (from 0.5 up; below, float32 leaves 2e-7
            of it); ``literal`` keeps ``value`` itself and
            uses softplus of it (the paper to the letter: 4 becomes 4.018);
            ``direct`` keeps L and uses |L|, which makes ``preserve`` exact to
            the last bit. None: ``direct`` for ``preserve``, else ``softplus``.
        cap: with ``preserve``, L = min(D, cap): only units that can exceed the
            cap are turned (partial rotation).
    """

    value: float | Tensor | Literal["preserve"] = 4.0
    type: LimitType = "auto_indep"
    storage: Storage | None = None
    cap: float | None = None

    def __post_init__(self) -> None:
        preserving = isinstance(self.value, str)
        if preserving and self.type.endswith("shared"):
            raise BadConfig(
                f"one L for all units cannot preserve the function ({self.type})",
                hint="use auto_indep or frozen_indep",
            )
        numbers = [self.value, self.cap]
        given = [torch.as_tensor(n) for n in numbers if not isinstance(n, str | None)]
        if any(not bool(((n > 0) & n.isfinite()).all()) for n in given):
            raise BadConfig(
                f"L must be positive and finite, not {_brief(self.value)}",
                hint="4 suits sigmoid, 2 suits tanh",
            )

    @property
    def preserves(self) -> bool:
        """L is taken from the layer."""
        return isinstance(self.value, str)

    @property
    def stored(self) -> Storage:
        """How L is stored."""
        return self.storage or ("direct" if self.preserves else "softplus")

    @property
    def trained(self) -> bool:
        """L is a parameter."""
        return self.type.startswith("auto")

    @property
    def shared(self) -> bool:
        """One L for all units."""
        return self.type.endswith("shared")


def _brief(value: float | Tensor | str) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"between {value.min():g} and {value.max():g}"
    return f"{value}" if isinstance(value, str) else f"{float(value):g}"


def draw_limit(
    distribution: Literal["normal", "uniform"],
    units: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns one L per unit: N(5, 1), at least 0.5, or U(2, 8).

    The paper's two distributions stand in a figure that is lost; these are ours.

    Raises:
        BadConfig: another distribution.
    """
    if distribution == "normal":
        return torch.randn(units, generator=generator).add_(5.0).clamp_min_(0.5)
    if distribution == "uniform":
        return torch.rand(units, generator=generator).mul_(6.0).add_(2.0)
    raise BadConfig(f"no distribution {distribution!r} for L", hint="normal or uniform")


def raw(limit: Tensor, storage: Storage) -> Tensor:
    """Returns what is stored for L, so that ``effective`` gives L back."""
    if storage != "softplus":
        return limit.clone()
    wide = limit.double()
    stored = (wide + torch.log(-torch.expm1(-wide))).to(limit.dtype)
    # softplus rounds: move by a unit in the last place until L comes out exact.
    for _ in range(4):
        missing = limit - F.softplus(stored)
        towards = torch.where(missing > 0, torch.inf, -torch.inf).to(stored)
        stored = torch.where(missing == 0, stored, torch.nextafter(stored, towards))
    return stored


def effective(stored: Tensor, storage: Storage) -> Tensor:
    """Returns L > 0 from what is stored."""
    return stored.abs() if storage == "direct" else F.softplus(stored)
