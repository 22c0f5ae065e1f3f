"""Turns layers into auto-rotated ones in place, folds ρ, and turns them back."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotRewrite
from vgaudit.nn.denominator import Denominator, Kind
from vgaudit.nn.inputs import Inputs, Number
from vgaudit.nn.limit import Limit
from vgaudit.nn.made import MADE_BY, Making, made_again, named
from vgaudit.nn.recurrent import (
    AutoRotatedGRU,
    AutoRotatedLSTM,
    AutoRotatedRNN,
)
from vgaudit.nn.refusals import refuse_clash, refuse_unusual
from vgaudit.nn.rotated import (
    AutoRotatedConv1d,
    AutoRotatedConv2d,
    AutoRotatedConv3d,
    AutoRotatedLinear,
    ColumnRotation,
    WeightRotation,
)
from vgaudit.nn.rotation import ENTRIES, AutoRotation
from vgaudit.nn.transposed import (
    AutoRotatedConvTranspose1d,
    AutoRotatedConvTranspose2d,
    AutoRotatedConvTranspose3d,
)

_ROTATED: tuple[type[AutoRotation], ...] = (
    AutoRotatedLinear,
    AutoRotatedConv1d,
    AutoRotatedConv2d,
    AutoRotatedConv3d,
    AutoRotatedConvTranspose1d,
    AutoRotatedConvTranspose2d,
    AutoRotatedConvTranspose3d,
    AutoRotatedLSTM,
    AutoRotatedGRU,
    AutoRotatedRNN,
)


def auto_rotate(
    module: nn.Module,
    *,
    limit: Limit | float | Tensor | None = None,
    denominator: Denominator | Kind | float = "moments",
    inputs: Inputs | tuple[Number, Number] = (-1.0, 1.0),
) -> AutoRotation:
    """Makes an existing layer auto-rotated, in place, by changing its class.

    The parameters stay the same objects under the same names; ``ar_limit``,
    ``ar_center`` and ``ar_spread`` are added. Follow with ``fold_``: unfolded
    weights stay as small as they were while ρ is large, the optimizer's step is
    then large beside them, and deep networks collapse.

    Args:
        module: a Linear, (transposed) convolution, LSTM, GRU or tanh RNN, or a
            subclass.
        limit: L; a number, one per unit, or ``Limit``. By default 4, and for
            gates 4 (sigmoid) and 2 (tanh).
        denominator: how D is computed; a word, a number q, or ``Denominator``.
        inputs: what reaches the layer: (low, high), or ``Inputs``.

    Returns:
        The same object.

    Raises:
        CannotRewrite: a layer that cannot be rotated.
        BadConfig: arguments that do not fit each other or the layer.
    """
    if isinstance(module, AutoRotation):
        raise CannotRewrite(
            f"{type(module).__name__} is auto-rotated already", hint="bake it first"
        )
    refuse_unusual(module)
    plain: Any = type(module)
    made = rotated_class(plain)
    refuse_clash(plain.__name__, vars(module), made)
    module.__class__ = made
    assert isinstance(module, AutoRotation)
    try:
        module.begin(limit=limit, denominator=denominator, inputs=inputs)
    except BaseException:
        _restore(module, plain)
        raise
    return module


@cache
def rotated_class(plain: type[Any]) -> type[AutoRotation]:
    """Returns the auto-rotated class of a plain one, the same at every call.

    Raises:
        CannotRewrite: no layer that can be rotated.
    """
    if is_hub_conv1d(plain):
        return _made(plain, ColumnRotation)
    for rotated in _ROTATED:
        if plain is rotated.plain_class:
            return rotated
    for rotated in _ROTATED:
        if issubclass(plain, rotated.plain_class):
            return _subclass(plain, rotated)
    raise CannotRewrite(
        f"auto-rotation of {plain.__name__}",
        hint="it works on Linear, Conv, ConvTranspose, LSTM, GRU, RNN and subclasses",
    )


def _subclass(plain: type[Any], rotated: type[AutoRotation]) -> type[AutoRotation]:
    """Returns a rotated class for a user's subclass, whose own forward is kept.

    Raises:
        CannotRewrite: the subclass has members of the names that rotation adds.
    """
    family = rotated.__mro__[1]
    known = rotated.plain_class.__mro__
    for kind in [kind for kind in plain.__mro__ if kind not in known]:
        refuse_clash(plain.__name__, vars(kind), rotated)
    own = plain.forward is not rotated.plain_class.forward
    if own and issubclass(family, WeightRotation):
        return _made(plain, family, forward=WeightRotation.forward)
    return _made(plain, family)


def _made(
    plain: type[Any], family: type[AutoRotation], **members: Any
) -> type[AutoRotation]:
    """Returns a class of layers of a plain class, rotated as a family is."""
    space: dict[str, Any] = {
        "plain_class": plain,
        MADE_BY: Making(rotated_class, plain),
        "__module__": __name__,
        "__doc__": f"``{plain.__qualname__}`` with auto-rotation.",
        "__reduce_ex__": _reduce,
        **members,
    }
    return type(f"AutoRotated{plain.__name__}", (family, plain), space)


def is_hub_conv1d(kind: type[Any]) -> bool:
    """Tells the linear layer of transformers that is called ``Conv1D``.

    By its name: transformers need not be there.
    """
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def _reduce(module: AutoRotation, protocol: Any) -> Any:
    """Returns how to pickle a layer whose class was made at run time.

    That class has no name to import: the plain class is named, and it is made again.
    """
    reduced = super(AutoRotation, module).__reduce_ex__(protocol)
    return (_revive, (named(module.plain_class),), *reduced[2:])


def _revive(plain: Any) -> AutoRotation:
    made = rotated_class(made_again(plain))
    return made.__new__(made)


@torch.no_grad()
def fold_(module: AutoRotation) -> AutoRotation:
    """Writes ρ·w and ρ·b into the parameters; the function stays, ρ becomes 1.

    D scales with the weights, so the layer stays auto-rotated and its ρ moves
    away from 1 as it trains. Weights shared with another layer change there too.

    Raises:
        CannotRewrite: ``border="reference"``, whose ρ is no factor of the weights.
    """
    if module.border_matters():
        raise CannotRewrite(
            f"{type(module).__name__} with border='reference' cannot be folded",
            hint="its factor varies along the border; use border='interior'",
        )
    for name, value in module.rotated().items():
        getattr(module, name).copy_(value)
    return module


def bake(module: AutoRotation) -> nn.Module:
    """Turns the layer back into the plain one with ρ·w and ρ·b, in place.

    The output stays the same to the last bit.

    Returns:
        The same object, of its original class, with its original keys.

    Raises:
        CannotRewrite: ``border="reference"``, whose ρ is no factor of the weights.
    """
    fold_(module)
    _restore(module, module.plain_class)
    return module


def _restore(module: nn.Module, plain: type[Any]) -> None:
    for name in ENTRIES:
        module._parameters.pop(name, None)
        module._buffers.pop(name, None)
        module._non_persistent_buffers_set.discard(name)
    module.__dict__.pop("rotation", None)
    module.__class__ = plain
