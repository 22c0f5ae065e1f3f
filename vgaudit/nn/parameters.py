"""Auto-rotation of a parameter that a module multiplies with by hand.

The layer classes rotate what ``nn.Linear`` and convolutions hold. A module may keep
a matrix of its own and write ``x @ self.weight``: here its class is replaced by a
subclass on which the attribute gives ρ·w. The parameter stays the same object under
the same name; L and what is known of the inputs stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn.denominator import Denominator, Part, compute, ratio
from vgaudit.nn.inputs import Inputs
from vgaudit.nn.limit import Limit, effective, raw
from vgaudit.nn.made import MADE_BY, Making, made_again, named
from vgaudit.nn.rotation import Rotation, full_precision, widen

_ENTRIES = ("ar_limit", "ar_center", "ar_spread")
_KEPT = "rotated_parameters"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A parameter that a module multiplies with by hand: a matrix, or a stack of them.

    Attributes:
        name: of the parameter.
        axis: −1 or −2: the dimension that runs over the units; the product sums over
            the other of both.
    """

    name: str
    axis: int

    def __post_init__(self) -> None:
        if self.axis not in (-1, -2):
            raise BadConfig(
                f"axis {self.axis} of {self.name}",
                hint="give -1 or -2: units are columns or rows of a matrix",
            )


def rotate_parameter(
    module: nn.Module,
    matrix: Matrix,
    *,
    limit: Limit,
    denominator: Denominator,
    inputs: Inputs,
) -> None:
    """Makes ``module.name`` give ρ·w, in place; ρ has one entry per unit.

    D is that of the product alone: a bias that is added by hand stays outside.

    Args:
        module: owns the parameter.
        matrix: which parameter, and along which dimension.
        limit: L, per unit.
        denominator: how D is computed.
        inputs: what the matrix is multiplied with, as scalars.

    Raises:
        CannotRewrite: no such matrix, or rotated already.
        BadConfig: limit, denominator and inputs do not fit each other.
    """
    name, axis = matrix.name, matrix.axis
    weight = module._parameters.get(name)
    if weight is None or weight.dim() < 2 or not weight.is_floating_point():
        raise CannotRewrite(
            f"{type(module).__name__} has no matrix of weights {name!r}",
            hint="name a parameter of two dimensions or more",
        )
    turns = rotated_parameters(module)
    if name in turns:
        raise CannotRewrite(f"{name} is auto-rotated already", hint="bake it first")
    if inputs.center.dim() or limit.shared:
        raise BadConfig(
            f"{name} takes one range or pair of moments, and one L per unit",
            hint="give scalars as inputs, and auto_indep or frozen_indep",
        )
    denominator.check(inputs)
    turn = Rotation(
        denominator=denominator,
        inputs=inputs.kind,
        limit_type=limit.type,
        storage=limit.stored,
    )
    like = widen(weight.detach())
    module.register_buffer(f"{name}_ar_center", inputs.center.to(like))
    module.register_buffer(f"{name}_ar_spread", inputs.spread.to(like))
    module.__dict__[_KEPT] = {**turns, name: (axis, turn)}
    wanted = parameter_size(module, name) if limit.preserves else limit.value
    stored = torch.as_tensor(wanted).detach().to(like).expand(_units(weight, axis))
    stored = raw(torch.where(stored > 0, stored, 1.0), limit.stored)
    if limit.trained:
        module.register_parameter(f"{name}_ar_limit", nn.Parameter(stored))
    else:
        module.register_buffer(f"{name}_ar_limit", stored)
    module.__class__ = _class(_plain(module), tuple(module.__dict__[_KEPT]))


def rotated_parameters(module: nn.Module) -> dict[str, tuple[int, Rotation]]:
    """Returns axis and rotation of each rotated parameter of a module, by name."""
    found: dict[str, tuple[int, Rotation]] = module.__dict__.get(_KEPT, {})
    return found


@torch.no_grad()
def fold_parameter_(module: nn.Module, name: str) -> None:
    """Writes ρ·w into the parameter; the function stays, ρ becomes 1."""
    parameter = module._parameters[name]
    assert parameter is not None
    parameter.copy_(_rotated(module, name))


@torch.no_grad()
def set_parameter_limit_(module: nn.Module, name: str, limit: Tensor) -> None:
    """Writes L per unit, which keeps its type and storage."""
    stored = getattr(module, f"{name}_ar_limit")
    _, turn = rotated_parameters(module)[name]
    stored.copy_(raw(limit.to(stored), turn.storage))


def bake_parameter(module: nn.Module, name: str) -> None:
    """Turns a parameter back into a plain one with the values ρ·w, in place."""
    fold_parameter_(module, name)
    plain = _plain(module)
    turns = {n: turn for n, turn in rotated_parameters(module).items() if n != name}
    for entry in _ENTRIES:
        module._parameters.pop(f"{name}_{entry}", None)
        module._buffers.pop(f"{name}_{entry}", None)
    module.__dict__[_KEPT] = turns
    if not turns:
        del module.__dict__[_KEPT]
    module.__class__ = _class(plain, tuple(turns)) if turns else plain


def _rotated(module: nn.Module, name: str) -> Tensor:
    """Returns ρ·w in the parameter's own type."""
    weight = module._parameters[name]
    assert weight is not None
    axis, turn = rotated_parameters(module)[name]
    limit = effective(getattr(module, f"{name}_ar_limit"), turn.storage)
    rho = ratio(limit, parameter_size(module, name)).to(weight.dtype)
    return weight * rho.unsqueeze(_summed(axis))


def parameter_size(module: nn.Module, name: str) -> Tensor:
    """Returns D per unit of a rotated parameter, in float32 at least."""
    weight = module._parameters[name]
    assert weight is not None
    axis, turn = rotated_parameters(module)[name]
    rows = widen(weight).movedim(_summed(axis), -1)
    part = Part(
        rows.flatten(0, -2).unsqueeze(-1),
        module._buffers[f"{name}_ar_center"],  # type: ignore[arg-type]
        module._buffers[f"{name}_ar_spread"],  # type: ignore[arg-type]
    )
    with full_precision(weight.device):
        d = compute([part], None, turn.denominator, turn.k)
    return d.view(rows.shape[:-1])


def _summed(axis: int) -> int:
    """Returns the dimension that the product sums over."""
    return -1 if axis == -2 else -2


def _units(weight: Tensor, axis: int) -> torch.Size:
    shape = list(weight.shape)
    del shape[_summed(axis)]
    return torch.Size(shape)


def _plain(module: nn.Module) -> Any:
    kind: Any = type(module)
    return kind.__dict__.get("plain_class", kind) if _KEPT in vars(kind) else kind


@cache
def _class(plain: Any, names: tuple[str, ...]) -> Any:
    """Returns a subclass on which some attributes give rotated parameters."""

    def attribute(name: str) -> property:
        return property(lambda self: _rotated(self, name))

    space = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "__reduce_ex__": _reduce,
        "plain_class": plain,
        MADE_BY: Making(_class, plain, (names,)),
        _KEPT: names,
        **{name: attribute(name) for name in names},
    }
    return type(plain.__name__, (plain,), space)


def _reduce(module: nn.Module, protocol: Any) -> Any:
    """Returns how to pickle a module whose class was made at run time."""
    # A class on top of this one may have called.
    made: Any = next(kind for kind in type(module).__mro__ if _KEPT in vars(kind))
    reduced = super(made, module).__reduce_ex__(protocol)
    return (_revive, (named(made.plain_class), vars(made)[_KEPT]), *reduced[2:])


def _revive(plain: Any, names: tuple[str, ...]) -> nn.Module:
    made = _class(made_again(plain), names)
    module: nn.Module = made.__new__(made)
    return module
