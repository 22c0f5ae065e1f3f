"""Copies of models, also of those that ``copy.deepcopy`` refuses."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotRewrite


def copied(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Returns a copy, and the attributes that it shares with the model.

    A tensor that was computed (what ``torch.nn.utils.weight_norm`` leaves on a layer)
    is copied without its history: the next forward pass computes it anew. Other
    objects that cannot be copied, such as open files, locks and generators, are
    shared.

    Raises:
        CannotRewrite: there is no copy all the same.
    """
    with warnings.catch_warnings():
        # Exported programs hold such tensors, which are asked where they lie.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        return _copied(model)


def _copied(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        return copy.deepcopy(model), ()
    except Exception:
        memo: dict[int, Any] = {}
        shared = tuple(_keep(model, memo))
    try:
        return copy.deepcopy(model, memo), shared
    except Exception as error:
        raise CannotRewrite(
            f"{type(model).__name__} cannot be copied: {error}",
            hint="remove what cannot be copied (open files, locks) from the model",
        ) from error


def _keep(model: nn.Module, memo: dict[int, Any]) -> Iterator[str]:
    """Puts into ``memo`` what cannot be copied; yields the names of what is shared."""
    with torch.no_grad():
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if name in ("_modules", "_parameters"):
                    continue
                yield from _kept(f"{path}.{name}".lstrip("."), value, memo)


def _kept(place: str, value: Any, memo: dict[int, Any]) -> Iterator[str]:
    if id(value) in memo:
        return
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _kept(f"{place}.{key}", item, memo)
        return
    if isinstance(value, nn.Module):
        return
    try:
        copy.deepcopy(value)
    except Exception:
        memo[id(value)] = value
        yield place
