"""Which dimension of an activation runs over its units, and which module is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.probe import operations
from vgaudit.probe.activations import Activation, by_autograd
from vgaudit.probe.naming import class_of

_CHANNEL_FIRST = (
    "Convolution",
    "BatchNorm",
    "GroupNorm",
    "SlowConv",
    "MaxPool",
    "AvgPool",
)
_FEATURES_LAST = ("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "LayerNorm", "RmsNorm")
_THROUGH = frozenset(
    {"View", "UnsafeView", "Add", "Mul", "Clone", "NativeDropout", "Relu", "ToCopy"}
)
_MAX_STEPS = 6
_RANGE = 64.0
_FLAT = 1e-3
_GROWTH = 1.01
_POINTS = 2049
_LARGEST_SAMPLE = 1 << 22


def axis_of(z: Tensor) -> int | None:
    """Returns the dimension of ``z`` that runs over channels or features.

    The operation that made ``z`` decides: channels come second after a
    convolution, last after a matrix product. Where it is unknown, the number
    of dimensions does. Vectors and scalars have no units.
    """
    if z.dim() < 2:
        return None
    node = operations.made_by(z)
    for _ in range(_MAX_STEPS):
        if node is None:
            break
        kind = operations.kind(node.name())
        if any(name in kind for name in _CHANNEL_FIRST):
            return 1
        if kind.startswith(_FEATURES_LAST):
            return -1
        if kind not in _THROUGH or not node.next_functions:
            break
        node = operations.behind(*node.next_functions[0])[0]
    return 1 if z.dim() >= 4 else -1


def is_torch_activation(module: nn.Module) -> bool:
    """Tells whether a module is one of torch's own activations."""
    return class_of(
        module
    ).__module__ == "torch.nn.modules.activation" and not isinstance(
        module, nn.MultiheadAttention
    )


def may_be_activation(module: nn.Module) -> bool:
    """Tells whether a module could be an activation of the user's own.

    A leaf without parameters that is none of torch's modules.
    """
    own = not class_of(module).__module__.startswith("torch.nn.")
    leaf = next(module.children(), None) is None
    bare = next(module.parameters(recurse=False), None) is None
    return own and leaf and bare


def recognise(
    name: str, call: Callable[[Tensor], Any], z: Tensor, out: Any
) -> Activation | None:
    """Returns a description of ``call`` if it is an elementwise nonlinearity.

    Every other element is changed: in an elementwise function the rest of the
    output must not move, and the slope must not be constant.
    """
    fits = isinstance(out, Tensor) and out.shape == z.shape
    if not fits or not z.is_floating_point() or z.numel() < 2:
        return None
    with torch.no_grad():
        mask = torch.arange(z.numel(), device=z.device).reshape(z.shape) % 2 == 0
        other = call(torch.where(mask, z.detach(), 0.5 - 2 * z.detach()))
        same = isinstance(other, Tensor) and torch.equal(
            other[mask], out.detach()[mask]
        )
    if not same:
        return None
    grid = _grid(z)
    slope = by_autograd(call, grid).reshape(-1).abs()
    if (
        not bool(torch.isfinite(slope).all())
        or float(slope.max() - slope.min()) < _FLAT
    ):
        return None
    top = float(slope.max())
    rails = max(float(slope[0]), float(slope[-1])) < _FLAT * top
    steepest = float(grid.reshape(-1)[int(slope.argmax())])
    quarter = slope.numel() // 4
    grows = top > _GROWTH * float(slope[quarter:-quarter].max())
    return Activation(name, steepest, math.inf if grows else top, bounded=rails)


def sample_like(z: Tensor) -> Tensor | None:
    """Returns values for one or two samples of the shape of ``z``; None if too many."""
    samples = min(z.shape[0], 2) if z.dim() else 1
    shape = (samples, *z.shape[1:]) if z.dim() else ()
    if math.prod(shape) > _LARGEST_SAMPLE or not z.is_floating_point():
        return None
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def _grid(z: Tensor) -> Tensor:
    """Returns rising values shaped like ``z`` with as many samples as they need."""
    if z.dim() == 0:
        shape: tuple[int, ...] = (_POINTS,)
    else:
        inner = z.numel() // z.shape[0]
        shape = (max(z.shape[0], -(-_POINTS // inner)), *z.shape[1:])
    count = math.prod(shape)
    # Half precision is too coarse, and exp(64) overflows float32 when squared.
    values = torch.linspace(
        -_RANGE, _RANGE, count, device=z.device, dtype=torch.float64
    )
    return values.reshape(shape)
