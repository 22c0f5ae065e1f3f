"""The names of torch functions and of modules' classes, however they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def name_of(function: Callable[..., Any]) -> str:
    """Returns a function's name; ``torch.ops.aten.relu.default`` is ``relu`` too."""
    name: str = getattr(function, "__name__", "")
    return name.partition(".")[0]


def class_of(module: nn.Module) -> type[nn.Module]:
    """Returns the class of a module; FSDP2 puts one of its own in front of it."""
    kind = type(module)
    sharded = kind.__bases__[0].__name__ == "FSDPModule"
    return kind.__bases__[1] if sharded else kind
