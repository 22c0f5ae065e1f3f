"""What of a model, and of the process, must come back bit by bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def model_state(model: nn.Module) -> dict[str, Any]:
    """Returns copies of everything a forward may change."""
    state: dict[str, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        lazy = nn.parameter.is_lazy(tensor)
        state[f"tensor {name}"] = (
            id(tensor),
            None if lazy else tensor.detach().clone(),
        )
    for path, module in model.named_modules():
        state[f"mode {path}"] = module.training
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            state[f"{kind} {path}"] = list(getattr(module, kind))
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor):
                state[f"attribute {path}.{name}"] = (id(value), value.clone())
            elif isinstance(value, list):
                state[f"list {path}.{name}"] = [id(item) for item in value]
        state[f"names {path}"] = list(module.__dict__)
    return state


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Asserts that two states are equal, NaN and all."""
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, tuple) and isinstance(value[1], Tensor):
            assert value[0] == after[name][0], name
            assert torch.equal(_bits(value[1]), _bits(after[name][1])), name
        else:
            assert value == after[name], name


def _bits(tensor: Tensor) -> Tensor:
    """Returns the bytes of a tensor: NaN equals NaN, and -0 is not 0."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def random_states() -> tuple[int, int, int]:
    """Returns hashes of the random states of torch, Python and numpy."""
    return (
        hash(torch.get_rng_state().numpy().tobytes()),
        hash(random.getstate()),
        hash(repr(np.random.get_state())),
    )
