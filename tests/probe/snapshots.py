"""Everything that can be seen of a model, as plain values that compare bit by bit."""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Returns all that a scan must leave as it was; keeps no reference to change."""
    found: dict[str, Any] = {
        "torch": _bytes(torch.get_rng_state()),
        "python": random.getstate(),
        "numpy": _plain(np.random.get_state()),
        "grad enabled": torch.is_grad_enabled(),
        "modules": [(name, id(module)) for name, module in model.named_modules()],
    }
    for name, module in model.named_modules(remove_duplicate=False):
        for key, value in module.__dict__.items():
            found[f"{name}.{key}"] = _plain(value)
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, nn.UninitializedParameter):
            found[f"{name} hooks"] = _plain(parameter._backward_hooks or None)
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Returns what is not the same."""
    keys = before.keys() | after.keys()
    return sorted(k for k in keys if before.get(k, "—") != after.get(k, "—"))


def _bytes(values: Tensor) -> bytes:
    flat = values.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _plain(value: Any, depth: int = 0) -> Any:
    """Returns a value as something that later changes cannot reach."""
    if depth > 6:
        return id(value)
    if isinstance(value, Tensor):
        return _tensor(value, depth)
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, (dict, collections.UserDict)):
        items = [(_key(k), _plain(v, depth + 1)) for k, v in value.items()]
        return (id(value), type(value), items)
    if isinstance(value, (list, tuple, collections.deque)):
        return (type(value), [_plain(item, depth + 1) for item in value])
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(map(repr, value)))
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    return id(value)


def _key(key: Any) -> Any:
    return key if isinstance(key, (str, int)) else id(key)


def _tensor(value: Tensor, depth: int) -> Any:
    lazy = isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer))
    if lazy:
        return (id(value), "uninitialised")
    return (
        id(value),
        value.data_ptr(),
        value._version,
        tuple(value.shape),
        value.dtype,
        value.requires_grad,
        value.is_leaf,
        sorted(value.__dict__),
        _bytes(value.to_dense() if value.is_sparse else value),
        _plain(value.grad, depth + 1) if value.is_leaf else None,
    )
