"""Devices and floating-point types by name."""

from __future__ import annotations

import torch
from torch import nn

from vgaudit.errors import BadConfig


def own_dtype(model: nn.Module) -> torch.dtype:
    """Returns the type of the model's first floating-point parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def parse_dtype(name: str) -> torch.dtype:
    """Returns a floating-point type by name.

    Raises:
        BadConfig: for any other name.
    """
    known = {"float16", "bfloat16", "float32", "float64"}
    if name not in known:
        raise BadConfig(
            f"{name!r} is no floating-point type to measure in",
            hint=f"use auto or one of {', '.join(sorted(known))}",
        )
    found: torch.dtype = getattr(torch, name)
    return found


def parse_device(name: str) -> torch.device:
    """Returns a device by name.

    Raises:
        BadConfig: for a name or number that this machine does not have.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        text = str(error).splitlines()[0]
        raise BadConfig(
            f"device {name!r} cannot be used: {text}", hint="use --device cpu"
        ) from error
    return device


def dtype_name(dtype: torch.dtype) -> str:
    """Returns the name of a type without its module: ``float32``."""
    return str(dtype).removeprefix("torch.")
