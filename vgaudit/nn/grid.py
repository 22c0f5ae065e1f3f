"""Where the hinges of a PiecewiseLinear are put, and the shape it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.errors import BadConfig
from vgaudit.nn.activations import Start

Outside = Literal["linear", "clamp"]
Shape = Callable[[Tensor], Tensor]
"""An elementwise function, or one with parameters per channel (dimension 1)."""

_LEAK = 0.1


@dataclass(frozen=True, slots=True)
class Grid:
    """Hinge positions.

    Attributes:
        positions: ``[1, H]`` for all channels or ``[C, H]``, increasing.
        outside: beyond the hinges the end segments go on (``linear``), or the
            end values hold (``clamp``, as published; no gradient passes there).
    """

    positions: Tensor
    outside: Outside = "linear"

    @classmethod
    def uniform(
        cls,
        low: float = -4.0,
        high: float = 4.0,
        hinges: int = 9,
        *,
        outside: Outside = "linear",
    ) -> Grid:
        """Returns ``hinges`` positions at equal distances from ``low`` to ``high``.

        Symmetric limits and an odd number make 0 a hinge, and ReLU exact.

        Raises:
            BadConfig: fewer than two hinges, or no interval.
        """
        if hinges < 2 or not (
            math.isfinite(low) and math.isfinite(high) and low < high
        ):
            raise BadConfig(
                f"no grid of {hinges} hinges from {low} to {high}",
                hint="give at least 2 hinges and low < high",
            )
        positions = torch.linspace(low, high, hinges, dtype=_dtype(), device="cpu")
        return cls(positions.unsqueeze(0), outside)

    @classmethod
    def at(
        cls, positions: Sequence[float] | Tensor, *, outside: Outside = "linear"
    ) -> Grid:
        """Returns the given positions, ``[H]`` or ``[C, H]``."""
        given = torch.as_tensor(positions, dtype=_dtype(), device="cpu").detach()
        return cls(given.clone() if given.dim() == 2 else given.reshape(1, -1), outside)

    @classmethod
    def covering(
        cls,
        samples: Tensor,
        hinges: int = 9,
        *,
        channel_dim: int | None = None,
        spread: float = 3.0,
    ) -> Grid:
        """Returns a uniform grid over mean ± ``spread`` standard deviations.

        0 stays a hinge, and the width of a segment is rounded up to 12 binary
        digits, so that hinges are exact multiples of it. Per channel with
        ``channel_dim``, else for all together.

        Args:
            samples: pre-activations.
            hinges: how many; at least 3.
            channel_dim: dimension of the channels.
            spread: half-width in standard deviations.

        Raises:
            BadConfig: too few hinges, or no finite sample.
        """
        rows = samples.detach().to("cpu", torch.float64)
        if channel_dim is None:
            rows = rows.reshape(1, -1)
        else:
            rows = rows.movedim(channel_dim, 0).flatten(1)
        if hinges < 3 or rows.shape[1] == 0 or not bool(rows.isfinite().all()):
            raise BadConfig(
                f"no grid of {hinges} hinges over {rows.shape[1]} samples",
                hint="give at least 3 hinges and finite samples",
            )
        radius = spread * rows.std(1, correction=0, keepdim=True)
        mean = rows.mean(1, keepdim=True)
        low, high = (mean - radius).clamp(max=0), (mean + radius).clamp(min=0)
        steps = _steps_over(low, high, hinges)
        return cls(steps.to(_dtype()))


def _steps_over(low: Tensor, high: Tensor, hinges: int) -> Tensor:
    """Returns positions ``[C, H]`` that cover [low, high] and hold 0 at one index.

    The index is the same in every channel: the share of the mean interval
    that lies below 0.
    """
    below = float(-low.mean() / (high - low).mean().clamp_min(1e-30))
    lead = min(max(round(below * (hinges - 1)), 1), hinges - 2)
    step = torch.maximum(-low / lead, high / (hinges - 1 - lead))
    step = torch.where(step > 0, step, 1.0)
    mantissa, exponent = torch.frexp(step)
    step = torch.ldexp((mantissa * 4096).ceil() / 4096, exponent)
    return (torch.arange(hinges, dtype=step.dtype) - lead) * step


def _dtype() -> torch.dtype:
    """Returns the default type, but at least float32: positions must be exact."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def shape_of(start: Start, base: Shape | None) -> Shape:
    """Returns the function that a PiecewiseLinear is sampled from.

    Raises:
        BadConfig: ``start`` needs a base and has none, or one with slope 0 at 0.
    """
    if start in _SHAPES:
        return _SHAPES[start]
    if base is None:
        raise BadConfig(
            f"start={start!r} needs the activation it starts from",
            hint="pass base=, for example base=torch.nn.Sigmoid()",
        )
    return base if start == "preserve" else _unit_slope(base)


def _unit_slope(base: Shape) -> Shape:
    """Returns (f(x) − f(0)) / f′(0): through the origin with slope 1."""
    with torch.enable_grad():
        zero = torch.zeros(1, 1, device="cpu", requires_grad=True)
        at_zero = base(zero.clone())
        (slope,) = torch.autograd.grad(at_zero.sum(), zero)
    offset, scale = at_zero.detach().item(), slope.item()
    if not math.isfinite(scale) or abs(scale) < 1e-6:
        raise BadConfig(
            f"start='unit-slope' of an activation whose slope at 0 is {scale:g}",
            hint="start from 'leaky' or 'tanh' instead",
        )
    return lambda x: (base(x) - offset) / scale


def sample(shape: Shape, positions: Tensor, channels: int) -> Tensor:
    """Returns ``shape`` at the hinges of every channel, ``[C, H]``."""
    points = positions.expand(channels, -1).t().clone()
    owned = next(shape.parameters(), None) if isinstance(shape, nn.Module) else None
    with torch.no_grad():
        values = shape(points if owned is None else points.to(owned))
    return values.t().to(positions).contiguous()


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _LEAK)


_SHAPES: dict[str, Shape] = {
    "relu": torch.relu,
    "leaky": _leaky,
    "tanh": torch.tanh,
    "residual": torch.zeros_like,
}
