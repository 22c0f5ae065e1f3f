"""What auto-rotation and PiecewiseLinear assume of each activation: one table.

``limit`` is L, the size that a rotated pre-activation is to keep: 4 for sigmoid,
2 for tanh, 7 for arctan are the values of the authors' code. The others follow
the rule that the first two obey: there the slope has fallen to 7 % of its
maximum (hard activations: to the kink). Where an activation does not saturate,
4 keeps a rotated layer where a sigmoid layer would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi
from typing import Literal

from vgaudit.errors import BadConfig

Start = Literal["preserve", "unit-slope", "relu", "leaky", "tanh", "residual"]
"""Shapes a PiecewiseLinear can start from."""

K_RANGE = 2.0
"""k for a declared range: P(|z| > L) ≤ 2·exp(−k²/2) = 27 % by Hoeffding."""
K_MOMENTS = 3.0
"""k for measured moments: P(|z| > L) ≤ 1/k² = 11 % by Chebyshev; 0.3 % if Gaussian."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Defaults for one activation.

    Attributes:
        name: canonical name, as in ``torch.nn.functional``.
        limit: L for auto-rotation.
        low: least output.
        high: largest output.
        kinks: where the slope jumps, for exact hinges.
        piecewise_linear: it consists of straight lines.
        start: shape that a PiecewiseLinear in its place starts from.
    """

    name: str
    limit: float
    low: float
    high: float
    kinks: tuple[float, ...] = ()
    piecewise_linear: bool = False
    start: Start = "residual"

    @property
    def bounded(self) -> bool:
        """Has two rails, so that it can saturate on both sides."""
        return -inf < self.low and self.high < inf


def _lines(
    name: str, limit: float, low: float, high: float, *kinks: float
) -> Activation:
    return Activation(name, limit, low, high, kinks, True, "preserve")


_TABLE = (
    Activation("sigmoid", 4.0, 0.0, 1.0, start="tanh"),
    Activation("tanh", 2.0, -1.0, 1.0, start="tanh"),
    Activation("atan", 7.0, -pi / 2, pi / 2, start="tanh"),
    Activation("softsign", 2.8, -1.0, 1.0, (0.0,), start="tanh"),
    Activation("erf", 1.6, -1.0, 1.0, start="tanh"),
    _lines("hardsigmoid", 3.0, 0.0, 1.0, -3.0, 3.0),
    _lines("hardtanh", 1.0, -1.0, 1.0, -1.0, 1.0),
    _lines("relu6", 4.0, 0.0, 6.0, 0.0, 6.0),
    _lines("relu", 4.0, 0.0, inf, 0.0),
    _lines("leaky_relu", 4.0, -inf, inf, 0.0),
    _lines("prelu", 4.0, -inf, inf, 0.0),
    Activation("elu", 4.0, -1.0, inf, (0.0,)),
    Activation("selu", 4.0, -1.75809934085, inf, (0.0,)),
    Activation("celu", 4.0, -1.0, inf, (0.0,)),
    Activation("gelu", 4.0, -0.16997120748, inf),
    Activation("silu", 4.0, -0.27846454277, inf),
    Activation("mish", 4.0, -0.30884341302, inf),
    Activation("hardswish", 4.0, -0.375, inf, (-3.0, 3.0)),
    Activation("softplus", 4.0, 0.0, inf),
    Activation("logsigmoid", 4.0, -inf, 0.0),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _TABLE}
ALIASES = {"arctan": "atan", "swish": "silu", "log_sigmoid": "logsigmoid"}


def activation(name: str) -> Activation:
    """Returns the defaults of an activation.

    Raises:
        BadConfig: the name is not in the table.
    """
    name = name.lower()
    found = ACTIVATIONS.get(ALIASES.get(name, name))
    if found is None:
        raise BadConfig(
            f"no defaults for the activation {name!r}",
            hint=f"known are {', '.join(ACTIVATIONS)}",
        )
    return found
