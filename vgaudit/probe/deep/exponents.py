"""Exact histograms of exponents, and what float16 and bfloat16 lose of a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgaudit.flow import Exponents, FormatLoss

# frexp: |x| = m·2ᵉ with m in [0.5, 1), so floor(log2|x|) = e − 1. The range of
# float64 with its subnormals.
_LOWEST, _HIGHEST = -1074, 1023
_HALF_EDGE = -25
_HALF_TOP = 15
"""float16: 2⁻²⁶… becomes 0, 2⁻²⁵ rounds to 0 and all above it to 2⁻²⁴; 65504 < 2¹⁶."""

SAVED = 1e-3
"""Share of elements that may still be lost under a loss scale."""

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class ExponentSums:
    """Counts of one parameter's gradient elements; merges by addition.

    Attributes:
        counts: by exponent, from the lowest that float64 has.
        zeros, nonfinite: exactly 0; NaN or infinite.
        edge: elements that are exactly ±2⁻²⁵·2ᵏ, by exponent: they round to 0 in
            float16 where their neighbours above do not.
        becomes: format → elements that become zero, subnormal, infinite.
    """

    counts: Tensor = field(
        default_factory=lambda: torch.zeros(_HIGHEST - _LOWEST + 1, dtype=torch.int64)
    )
    edge: Tensor = field(
        default_factory=lambda: torch.zeros(_HIGHEST - _LOWEST + 1, dtype=torch.int64)
    )
    zeros: int = 0
    nonfinite: int = 0
    becomes: dict[str, list[int]] = field(
        default_factory=lambda: {name: [0, 0, 0] for name in FORMATS}
    )

    def add(self, gradient: Tensor) -> None:
        """Counts one gradient."""
        values = gradient.detach().reshape(-1)
        finite = torch.isfinite(values)
        self.nonfinite += int((~finite).sum())
        values = values[finite]
        self.zeros += int((values == 0).sum())
        values = values[values != 0]
        mantissa, exponent = torch.frexp(_wide(values))
        place = exponent.long() - 1 - _LOWEST
        size = self.counts.numel()
        self.counts += torch.bincount(place, minlength=size).cpu()
        powers = place[mantissa.abs() == 0.5]
        self.edge += torch.bincount(powers, minlength=size).cpu()
        for name, dtype in FORMATS.items():
            cast = values.to(dtype)
            small = cast.abs() < torch.finfo(dtype).smallest_normal
            found = (cast == 0, small & (cast != 0), torch.isinf(cast))
            for index, mask in enumerate(found):
                self.becomes[name][index] += int(mask.sum())

    def merge(self, other: ExponentSums) -> None:
        """Adds what ``other`` counted."""
        self.counts = self.counts + other.counts
        self.edge = self.edge + other.edge
        self.zeros += other.zeros
        self.nonfinite += other.nonfinite
        for name, figures in other.becomes.items():
            mine = self.becomes[name]
            self.becomes[name] = [a + b for a, b in zip(mine, figures, strict=True)]

    @property
    def total(self) -> int:
        """All elements."""
        return int(self.counts.sum()) + self.zeros + self.nonfinite

    def exponents(self) -> Exponents:
        """Returns the histogram, cut to where there is anything."""
        filled = self.counts.nonzero().reshape(-1)
        if not filled.numel():
            return Exponents(
                lowest=0, counts=(), zeros=self.zeros, nonfinite=self.nonfinite
            )
        first, last = int(filled[0]), int(filled[-1])
        return Exponents(
            lowest=first + _LOWEST,
            counts=tuple(self.counts[first : last + 1].tolist()),
            zeros=self.zeros,
            nonfinite=self.nonfinite,
        )

    def losses(self) -> tuple[FormatLoss, ...]:
        """Returns what each format does to the gradient."""
        total = max(self.total, 1)
        return tuple(
            FormatLoss(
                format=name,
                zero=zero / total,
                subnormal=low / total,
                overflow=up / total,
            )
            for name, (zero, low, up) in self.becomes.items()
        )

    def loss_scale(self) -> float | None:
        """Returns the smallest power of two that saves the gradient in float16.

        None where the largest element would overflow before.
        """
        filled = self.counts.nonzero().reshape(-1)
        if not filled.numel():
            return 1.0
        below = torch.cat([torch.zeros(1, dtype=torch.int64), self.counts.cumsum(0)])
        top = int(filled[-1]) + _LOWEST
        scale = 0
        while self._lost(below, scale) > SAVED * self.total:
            scale += 1
        return math.ldexp(1.0, scale) if top + scale <= _HALF_TOP else None

    def _lost(self, below: Tensor, scale: int) -> int:
        """Returns the elements that float16 turns into 0 after a factor 2^scale."""
        edge = _HALF_EDGE - scale - _LOWEST
        if edge < 0:
            return 0
        return int(below[edge]) + int(self.edge[edge])


def _wide(values: Tensor) -> Tensor:
    half = values.dtype in (torch.float16, torch.bfloat16)
    return values.float() if half else values
