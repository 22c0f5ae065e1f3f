"""The name of a torch function, however it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def name_of(function: Callable[..., Any]) -> str:
    """Returns a function's name; ``torch.ops.aten.relu.default`` is ``relu`` too."""
    name: str = getattr(function, "__name__", "")
    return name.partition(".")[0]
