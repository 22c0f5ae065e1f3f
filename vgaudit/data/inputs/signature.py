"""What a model's ``forward`` asks for, read from its signature."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from torch import nn

from vgaudit.plain import visible

_WRAPPERS = frozenset({"DataParallel", "DistributedDataParallel", "OptimizedModule"})
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the module inside ``DataParallel``, DDP or ``torch.compile``."""
    while type(model).__name__ in _WRAPPERS:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def forward_signature(model: nn.Module) -> inspect.Signature:
    """Returns the signature of ``forward`` without ``self``.

    A forward that Python cannot look into counts as ``(*args, **kwargs)``.
    """
    try:
        return inspect.signature(unwrap(model).forward)
    except (TypeError, ValueError):
        return inspect.signature(lambda *args, **kwargs: None)


def has_forward(model: nn.Module) -> bool:
    """Tells whether the class implements ``forward`` at all."""
    forward = getattr(unwrap(model), "forward", None)
    return getattr(forward, "__name__", "") != "_forward_unimplemented"


def required(model: nn.Module) -> tuple[inspect.Parameter, ...]:
    """Returns the arguments a caller must give, in order.

    A forward without any (all have defaults, or it takes ``*args``) is asked
    for its first argument, because a model without input is rare.
    """
    parameters = tuple(forward_signature(model).parameters.values())
    wanted = tuple(
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    )
    return wanted or parameters[:1]


def positional_range(model: nn.Module) -> tuple[int, int]:
    """Returns how many positional arguments ``forward`` needs and can take."""
    parameters = forward_signature(model).parameters.values()
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    least = sum(p.default is p.empty for p in positional)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return max(least, 1), 1_000
    return max(least, min(len(positional), 1)), len(positional)


def takes(model: nn.Module, name: str) -> bool:
    """Tells whether ``forward`` has an argument called ``name``."""
    parameter = forward_signature(model).parameters.get(name)
    return parameter is not None and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def annotated(model: nn.Module) -> dict[str, Any]:
    """Returns the annotations of ``forward`` that can be resolved."""
    forward = unwrap(model).forward
    try:
        return typing.get_type_hints(forward)
    except Exception:  # names that exist for type checkers only
        return {}


def describe(model: nn.Module) -> str:
    """Returns ``LeNet.forward(x: Tensor, mask=None)`` on one line."""
    text = str(forward_signature(model)).replace("torch.Tensor", "Tensor")
    return f"{type(unwrap(model)).__name__}.forward{visible(text, length=160)}"
