"""Why a layer cannot be auto-rotated, found before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vgaudit.errors import CannotRewrite
from vgaudit.nn.rotation import ENTRIES, AutoRotation

_SHARED = frozenset(dir(nn.Module)) | {
    # What plain layers have themselves: annotations, hooks into torch.
    "__annotations__",
    "__orig_bases__",
    "__parameters__",
    "__static_attributes__",
    "__firstlineno__",
    "forward",
    "extra_repr",
    "plain_class",
}


def refuse_clash(
    name: str, members: Mapping[str, Any], rotated: type[AutoRotation]
) -> None:
    """Refuses a layer with members of the names that rotation adds.

    Raises:
        CannotRewrite: naming the first.
    """
    kinds = [kind for kind in rotated.__mro__ if issubclass(kind, AutoRotation)]
    added = {*ENTRIES, "rotation"}.union(*map(vars, kinds)) - _SHARED
    clash = sorted(added.intersection(members))
    if clash:
        raise CannotRewrite(
            f"{name} has a member {clash[0]!r}, which auto-rotation would hide",
            hint="rename it",
        )


def refuse_unusual(module: nn.Module) -> None:
    """Refuses layers whose weights are not ordinary parameters.

    Raises:
        CannotRewrite: with the reason.
    """
    # timid: weight_norm and the like compute the weight anew at every call, and
    # a scale of it that they take out again is no rotation.
    recurrent = isinstance(module, nn.RNNBase)
    name = "weight_ih_l0" if recurrent else "weight"
    weight = module._parameters.get(name)
    if weight is None and hasattr(module, name):
        raise CannotRewrite(
            f"the {name} of {type(module).__name__} is computed, not a parameter",
            hint="remove the parametrization first",
        )
    if "forward" in vars(module):
        raise CannotRewrite(
            f"the forward of {type(module).__name__} is replaced on the object, which "
            "would pass its rotation by",
            hint="remove the hook or patch that put it there",
        )
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise CannotRewrite(
            f"{type(module).__name__} is not initialised", hint="run it once first"
        )
    if weight is not None and not weight.is_floating_point():
        raise CannotRewrite(
            f"{type(module).__name__} has weights of {weight.dtype}",
            hint="auto-rotation needs real floating point weights",
        )
