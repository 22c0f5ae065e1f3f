"""D, the size of a pre-activation over the inputs; ρ = L / D.

Every D is positively homogeneous of degree 1 in (w, b): scaling a unit's weights
does not change ρ·(w, b). That is what lets ρ be folded into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgaudit.errors import BadConfig
from vgaudit.nn.activations import K_MOMENTS, K_RANGE
from vgaudit.nn.inputs import Inputs

Kind = Literal["moments", "interval", "xq-min", "xq-max", "xq"]
_KINDS = ("moments", "interval", "xq-min", "xq-max", "xq")


@dataclass(frozen=True, slots=True)
class Denominator:
    """How D is computed.

    Attributes:
        kind: ``moments``: |⟨w, mean⟩ + b| + k·√Σ w²·std². ``interval``: the exact
            maximum of |f| over the box of inputs. ``xq-min``, ``xq-max``, ``xq``:
            |f(x_Q)| at the constant input 2·min − max (the paper), 2·max − min
            (the authors' code), or ``q``; these bound nothing.
        k: for ``moments``; None is 2 for a declared range (whose half-width then
            stands for the standard deviation) and 3 for measured moments.
        q: for ``xq``.
        floor: D is at least this share of the D of ``moments``: keeps ρ finite
            where f(x_Q) happens to vanish.
        epsilon: added to D. The authors add 1e-5; then folding is no more exact.
        border: with zero padding, ``interior`` takes the D of the interior
            everywhere; ``reference`` runs the layer on a constant map as the
            authors do, so that D varies along the border and ρ cannot be folded.
    """

    kind: Kind = "moments"
    k: float | None = None
    q: float | None = None
    floor: float = 0.1
    epsilon: float = 0.0
    border: Literal["interior", "reference"] = "interior"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise BadConfig(
                f"no denominator {self.kind!r}", hint=f"one of {', '.join(_KINDS)}"
            )
        if (self.kind == "xq") != (self.q is not None):
            raise BadConfig(
                f"q={self.q} with the denominator {self.kind!r}",
                hint="give q with kind 'xq', and only there",
            )
        numbers = (self.k if self.k is not None else 1.0, self.floor, self.epsilon)
        if min(numbers) < 0:
            raise BadConfig(
                "k, floor and epsilon of a denominator must not be negative"
            )
        if self.border == "reference" and not self.fixed_point:
            raise BadConfig(
                f"border='reference' with the denominator {self.kind!r}",
                hint="only the denominators at a fixed point x_Q have it",
            )

    @classmethod
    def of(cls, given: Denominator | Kind | float) -> Denominator:
        """Returns ``given``, where a word is a kind and a number is q."""
        if isinstance(given, Denominator):
            return given
        return cls(given) if isinstance(given, str) else cls("xq", q=float(given))

    @property
    def fixed_point(self) -> bool:
        """D is |f| at one input."""
        return self.kind.startswith("xq")

    def check(self, inputs: Inputs) -> None:
        """Refuses inputs that do not fit.

        Raises:
            BadConfig: the kind needs a range and the inputs are moments.
        """
        if inputs.kind == "moments" and self.kind not in ("moments", "xq"):
            raise BadConfig(
                f"the denominator {self.kind!r} needs a range of inputs, not moments",
                hint="pass inputs=(low, high), or use 'moments'",
            )

    def factor(self, kind: Literal["range", "moments"]) -> float:
        """Returns k for inputs of a kind."""
        if self.k is not None:
            return self.k
        return K_RANGE if kind == "range" else K_MOMENTS


@dataclass(frozen=True, slots=True)
class Part:
    """Weights with the inputs they multiply.

    Attributes:
        weight: ``[units, inputs, taps]``.
        center: middle or mean of the inputs, scalar or ``[units, inputs, 1]``.
        spread: half range or standard deviation, likewise.
    """

    weight: Tensor
    center: Tensor
    spread: Tensor

    def dot(self, point: Tensor) -> Tensor:
        """Returns ⟨w, point⟩ per unit."""
        if point.dim() == 0:
            return self.weight.sum((1, 2)) * point
        return (self.weight * point).sum((1, 2))

    def norm(self, order: int) -> Tensor:
        """Returns the norm of w·spread per unit."""
        # A scalar is multiplied afterwards: one pass over the weight less.
        scalar = self.spread.dim() == 0
        weight = self.weight if scalar else self.weight * self.spread
        norm: Tensor = torch.linalg.vector_norm(weight, order, (1, 2))
        return norm * self.spread if scalar else norm


def compute(
    parts: Sequence[Part], bias: Tensor | None, how: Denominator, k: float
) -> Tensor:
    """Returns D per unit, ``[units]``.

    Args:
        parts: f is the sum over the parts.
        bias: ``[units]`` or None.
        how: which D.
        k: the factor of ``moments``.
    """
    if not how.fixed_point:
        d = _around_center(parts, bias, how.kind, k)
        return d + how.epsilon if how.epsilon else d
    at_point = [part.dot(fixed_point(part.center, part.spread, how)) for part in parts]
    d = torch.maximum(_sum(at_point, bias).abs(), floor_of(parts, bias, how, k))
    return d + how.epsilon


def floor_of(
    parts: Sequence[Part], bias: Tensor | None, how: Denominator, k: float
) -> Tensor:
    """Returns what D at a fixed point must not fall below, per unit."""
    return how.floor * _around_center(parts, bias, "moments", k)


def fixed_point(center: Tensor, spread: Tensor, how: Denominator) -> Tensor:
    """Returns x_Q, where f is taken: 2·min − max is center − 3·spread."""
    if how.q is not None:
        return torch.full_like(center, how.q)
    return center - 3 * spread if how.kind == "xq-min" else center + 3 * spread


def _around_center(
    parts: Sequence[Part], bias: Tensor | None, kind: Kind, k: float
) -> Tensor:
    level = _sum([part.dot(part.center) for part in parts], bias).abs()
    if kind == "interval":
        return level + _sum([part.norm(1) for part in parts], None)
    norms = [part.norm(2) for part in parts]
    deviation = norms[0]
    if len(norms) > 1:
        deviation = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return level + k * deviation


def _sum(terms: list[Tensor], bias: Tensor | None) -> Tensor:
    total = terms[0] if bias is None else terms[0] + bias
    for term in terms[1:]:
        total = total + term
    return total


def ratio(limit: Tensor, denominator: Tensor) -> Tensor:
    """Returns ρ = L / D; 1 where D is 0, as for a unit without any weight."""
    # One where and no second for the gradient: L / L is 1 and has slope 0 in L.
    return limit / torch.where(denominator > 0, denominator, limit)
