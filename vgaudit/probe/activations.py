"""Elementwise activations: their names, and their slope φ′(z) from autograd.

The slope is taken from the derivative itself, so saturation means the same for
every activation, a user's own included. For the common ones a closed form on
the output is cheaper; the tests hold it against autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vgaudit.probe.naming import name_of

SATURATION = 0.05
"""Share of the largest slope below which an element counts as saturated."""

Slope = Callable[[Tensor, Tensor], Tensor]
"""Returns φ′ from (z, φ(z)), elementwise."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What is known of an activation beforehand.

    Attributes:
        name: canonical name.
        steepest: the z at which |φ′| is largest; splits the two rails.
        slope_max: the largest |φ′| with the usual arguments; others may raise it.
        bounded: φ has two rails, so that it can saturate.
        slope: closed form of φ′, or None to ask autograd.
        rails: z below and above which a φ with two rails is saturated; None
            where it has no closed form.
        rising: φ of one number, where φ never falls: its range follows from that
            of z.
        steep_above: with the usual arguments φ is saturated nowhere above
            ``steepest``.
    """

    name: str
    steepest: float = 0.0
    slope_max: float = 1.0
    bounded: bool = False
    slope: Slope | None = None
    rails: tuple[float, float] | None = None
    rising: Callable[[float], float] | None = None
    steep_above: bool = False


def _step(z: Tensor, out: Tensor) -> Tensor:
    return (out > 0).to(out.dtype)


def _sigmoid(z: Tensor, out: Tensor) -> Tensor:
    if not out.is_cpu:
        return (1 - out).mul_(out)
    slope: Tensor = torch.ops.aten.sigmoid_backward.default(out.new_ones(()), out)
    return slope


def _tanh(z: Tensor, out: Tensor) -> Tensor:
    return (out * out).neg_().add_(1)


def _rising_sigmoid(z: float) -> float:
    # Of two ways that are the same, the one that cannot overflow.
    small = math.exp(-abs(z))
    return (1.0 if z >= 0 else small) / (1.0 + small)


def _rising_relu(z: float) -> float:
    return 0.0 if z < 0 else z


def _fused_gelu(z: Tensor, approximate: str) -> Tensor:
    ones = torch.ones_like(z)
    slope: Tensor = torch.ops.aten.gelu_backward(ones, z, approximate=approximate)
    return slope


def _fused_silu(z: Tensor, out: Tensor) -> Tensor:
    slope: Tensor = torch.ops.aten.silu_backward(torch.ones_like(z), z)
    return slope


def _random_leak(z: Tensor, out: Tensor) -> Tensor:
    # Asking autograd would draw other slopes, and disturb the random state.
    return torch.where(z < 0, out / z, torch.ones_like(z))


def _logits(scale: float) -> tuple[float, float]:
    """Returns where 4·s(1−s) of the logistic s falls to ``SATURATION``, scaled.

    tanh(z) is 2·s(2z) − 1, so its rails are those of the sigmoid at half the z.
    """
    root = math.sqrt(1 - SATURATION)
    edge = scale * math.log((1 + root) / (1 - root))
    return -edge, edge


_KNOWN = (
    Activation("relu", slope=_step, rising=_rising_relu),
    Activation("relu6", 3.0),
    Activation("leaky_relu", steep_above=True),
    Activation("prelu", steep_above=True),
    Activation("rrelu", slope=_random_leak),
    Activation("elu", steep_above=True),
    Activation("selu", slope_max=1.7580993, steep_above=True),
    Activation("celu", steep_above=True),
    Activation("gelu", 1.4142135, 1.1289042, steep_above=True),
    Activation("silu", 2.3993573, 1.0998393, slope=_fused_silu, steep_above=True),
    Activation("mish", 1.4906, 1.0885, steep_above=True),
    Activation("hardswish", 3.0, 1.5, steep_above=True),
    Activation("hardsigmoid", 0.0, 1 / 6, bounded=True),
    Activation("hardtanh", bounded=True),
    Activation(
        "sigmoid",
        0.0,
        0.25,
        bounded=True,
        slope=_sigmoid,
        rails=_logits(1.0),
        rising=_rising_sigmoid,
    ),
    Activation("logsigmoid"),
    Activation("tanh", bounded=True, slope=_tanh, rails=_logits(0.5), rising=math.tanh),
    Activation("softplus", steep_above=True),
    Activation("softsign", bounded=True),
    Activation("tanhshrink"),
    Activation("hardshrink"),
    Activation("softshrink"),
    Activation("threshold"),
    Activation("erf", 0.0, 1.1283792, bounded=True),
    Activation("atan", bounded=True),
    Activation("sin"),
    Activation("cos"),
    Activation("square", slope_max=float("inf")),
    Activation("exp", slope_max=float("inf")),
    Activation("clamp"),
)
KNOWN: dict[str, Activation] = {activation.name: activation for activation in _KNOWN}

_ALIASES = {
    "arctan": "atan",
    "hard_tanh": "hardtanh",
    "log_sigmoid": "logsigmoid",
    "_threshold": "threshold",
    "clamp_min": "clamp",
    "clamp_max": "clamp",
    "clip": "clamp",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "special_erf": "erf",
}
# Used for much else than as an activation: measured only inside a module that
# is recognised as an activation of the user's own.
_ORDINARY = frozenset({"exp", "sin", "cos", "square", "clamp", "erf"})


def canonical(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Activation | None:
    """Returns the activation that a call of a torch function computes, if it is one.

    ``hardtanh`` from 0 upwards is ReLU6: its lower side is ReLU's, not a rail.
    """
    name = name_of(function).rstrip("_")
    name = _ALIASES.get(name, name)
    if name == "hardtanh":
        lowest = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        name = "relu6" if lowest >= 0 else name
    return None if name in _ORDINARY else KNOWN.get(name)


def may_activate(function: Callable[..., Any]) -> bool:
    """Tells whether ``canonical`` may know a torch function, from its name alone."""
    name = name_of(function).rstrip("_")
    name = _ALIASES.get(name, name)
    return name in KNOWN and name not in _ORDINARY


def positional(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call with ``input`` given by place, not by name."""
    rest = {name: value for name, value in kwargs.items() if name != "input"}
    return (kwargs["input"], *args), rest


def is_inplace(
    function: Callable[..., Any], kwargs: dict[str, Any], args: tuple[Any, ...]
) -> bool:
    """Tells whether a call of an activation writes over its input."""
    name = name_of(function)
    if name.endswith("_") and not name.endswith("__"):
        return True
    if name == "rrelu":
        return bool(kwargs.get("inplace")) or args[4:5] == (True,)
    return bool(kwargs.get("inplace")) or (
        name not in _NO_INPLACE and any(argument is True for argument in args[1:])
    )


_NO_INPLACE = frozenset({"sigmoid", "tanh", "gelu", "softplus", "prelu"})


def slope_of(activation: Activation, kwargs: dict[str, Any]) -> Slope | None:
    """Returns φ′ without autograd for one call, where there is a way.

    For GELU it is torch's own backward kernel, which depends on an argument.
    """
    if activation.name == "gelu":
        approximate = kwargs.get("approximate", "none")
        return lambda z, out: _fused_gelu(z, approximate)
    return activation.slope


def by_autograd(call: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Returns φ′(z) of an elementwise ``call`` at every element, by one backward."""
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        out = call(leaf.clone())
        (slope,) = torch.autograd.grad(out, leaf, torch.ones_like(out))
    return slope


def by_autograd_of(call: Callable[[Tensor], Tensor]) -> Slope:
    """Returns ``by_autograd`` of an elementwise call as a function of (z, φ(z))."""
    return lambda z, out: by_autograd(call, z)


def call_without_inplace(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    """Returns z ↦ φ(z) for a recorded call with its other arguments kept.

    An in-place call is harmless: ``by_autograd`` hands it a fresh tensor.
    """
    rest = tuple(
        argument.detach() if isinstance(argument, Tensor) else argument
        for argument in args[1:]
    )
    name = name_of(function)
    if name == "prelu" and rest:
        weight = rest[0]
        return lambda z: F.prelu(z, weight.to(z.dtype))

    def call(z: Tensor) -> Tensor:
        result: Tensor = function(z, *rest, **kwargs)
        return result

    return call
