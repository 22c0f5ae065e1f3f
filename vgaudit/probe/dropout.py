"""Turning dropout off in functional calls, where no module flag reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vgaudit.probe.naming import name_of

# Builtins take ``train`` as their third positional argument.
_BUILTINS = frozenset(
    {
        torch.dropout,
        torch.dropout_,
        torch.alpha_dropout,
        torch.alpha_dropout_,
        torch.feature_dropout,
        torch.feature_dropout_,
        torch.feature_alpha_dropout,
        torch.feature_alpha_dropout_,
        torch.native_dropout,
    }
)
_SDPA_DROPOUT = 4
_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})


def may_drop(func: Callable[..., Any]) -> bool:
    """Tells whether ``without_dropout`` may change the arguments of a function."""
    name = name_of(func)
    return "dropout" in name or name in _ATTENTION


def without_dropout(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a torch function with dropout turned off."""
    name = name_of(func)
    if name == "scaled_dot_product_attention":
        return _attention(args, kwargs)
    if name == "multi_head_attention_forward" and "training" in kwargs:
        return args, {**kwargs, "training": False}
    if "dropout" in name and args and isinstance(args[0], Tensor):
        return _dropout(func, args, kwargs)
    return args, kwargs


def _attention(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > _SDPA_DROPOUT:
        return (*args[:_SDPA_DROPOUT], 0.0, *args[_SDPA_DROPOUT + 1 :]), kwargs
    if "dropout_p" in kwargs:
        return args, {**kwargs, "dropout_p": 0.0}
    return args, kwargs


def _dropout(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    if func in _BUILTINS or isinstance(func, torch._ops.OpOverload):
        return (args[0], rate, False), {}
    inplace = args[3] if len(args) > 3 else kwargs.get("inplace", False)
    return (args[0], rate, False, inplace), {}
