"""Exact histograms of exponents, and what float16 and bfloat16 lose of a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgaudit.flow import Exponents, FormatLoss

# The range of float64 with its subnormals.
_LOWEST, _HIGHEST = -1074, 1023
_PLACES = _HIGHEST - _LOWEST + 1
# float16: below 2⁻²⁵ all becomes 0, 2⁻²⁵ itself too, all above it 2⁻²⁴ or more.
_HALF_EDGE = -25
# Its largest number lies below 2¹⁶.
_HALF_TOP = 15
# Elements at a time: they stay in the cache for all that is counted of them.
_CHUNK = 1 << 18

SAVED = 1e-3
"""Share of elements that may still be lost under a loss scale."""

_FORMATS = ("float16", "bfloat16")


def _no_counts() -> Tensor:
    return torch.zeros(_PLACES, dtype=torch.int64, device="cpu")


def _nothing_lost() -> dict[str, tuple[int, int, int]]:
    return dict.fromkeys(_FORMATS, (0, 0, 0))


@dataclass(slots=True)
class ExponentSums:
    """Counts of one parameter's gradient elements; merges by addition.

    Attributes:
        counts: by exponent, from the lowest that float64 has.
        powers: of these, the exact powers of two: 2⁻²⁵ rounds to 0 in float16 where
            its neighbours above do not.
        zeros, nonfinite: exactly 0; NaN or infinite.
        becomes: format → elements that become zero, subnormal, infinite.
    """

    counts: Tensor = field(default_factory=_no_counts)
    powers: Tensor = field(default_factory=_no_counts)
    zeros: int = 0
    nonfinite: int = 0
    becomes: dict[str, tuple[int, int, int]] = field(default_factory=_nothing_lost)

    def add(self, gradient: Tensor) -> None:
        """Counts one gradient."""
        for chunk in chunks(gradient):
            self._add(chunk)

    def _add(self, values: Tensor) -> None:
        finite = torch.isfinite(values)
        bad = values.numel() - int(finite.sum())
        if bad:
            self.nonfinite += bad
            values = values[finite]
        zeros = int((values == 0).sum())
        self.zeros += zeros
        if zeros:
            values = values[values != 0]
        mantissa, exponent = torch.frexp(values)
        # frexp has |x| = m·2ᵉ with m in [0.5, 1).
        place = exponent.long() - (1 + _LOWEST)
        self.counts += torch.bincount(place, minlength=_PLACES).cpu()
        exact = mantissa.abs() == 0.5
        if bool(exact.any()):
            self.powers += torch.bincount(place[exact], minlength=_PLACES).cpu()
        for name in _FORMATS:
            before = self.becomes[name]
            found = _cast(values, getattr(torch, name))
            self.becomes[name] = (
                before[0] + found[0],
                before[1] + found[1],
                before[2] + found[2],
            )

    def merge(self, other: ExponentSums) -> None:
        """Adds what ``other`` counted."""
        self.counts = self.counts + other.counts
        self.powers = self.powers + other.powers
        self.zeros += other.zeros
        self.nonfinite += other.nonfinite
        for name, (zero, low, up) in other.becomes.items():
            mine = self.becomes[name]
            self.becomes[name] = (mine[0] + zero, mine[1] + low, mine[2] + up)

    @property
    def total(self) -> int:
        """All elements."""
        return int(self.counts.sum()) + self.zeros + self.nonfinite

    def exponents(self) -> Exponents:
        """Returns the histogram, cut to where there is anything."""
        filled = self.counts.nonzero().reshape(-1)
        first = int(filled[0]) if filled.numel() else 0
        last = int(filled[-1]) if filled.numel() else -1
        return Exponents(
            lowest=first + _LOWEST if filled.numel() else 0,
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
        return int(below[edge]) + int(self.powers[edge]) if edge >= 0 else 0


def chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Yields the values of a tensor in pieces, in float32 or wider."""
    for part in torch.split(tensor.detach().reshape(-1), _CHUNK):
        yield part if part.dtype == torch.float64 else part.float()


def _cast(values: Tensor, dtype: torch.dtype) -> tuple[int, int, int]:
    """Returns how many become zero, subnormal and infinite."""
    size = values.to(dtype).abs()
    zero = int((size == 0).sum())
    small = int((size < torch.finfo(dtype).smallest_normal).sum()) - zero
    return zero, small, int(torch.isinf(size).sum())
