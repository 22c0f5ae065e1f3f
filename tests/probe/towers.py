"""Small nets put together by a test, and the error that one must raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vgaudit.errors import VgauditError


def tower(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *middle, nn.Linear(6, 3))


class Two(nn.Module):
    """Two linear layers ``a`` and ``b``, put together by a function."""

    def __init__(self, together: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.together = together
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *given: Any) -> Any:
        return self.together(self, *given)


def refused(act: Callable[[], Any], kind: type[VgauditError]) -> tuple[str, str]:
    """Returns message and hint of the one error that ``act`` must raise."""
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value.message, caught.value.hint
