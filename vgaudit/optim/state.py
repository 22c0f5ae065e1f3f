"""Loading an optimizer's state without changing the types of its averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor


def keep_types(
    saved: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, dict[str, Any]],
) -> None:
    """Puts back the tensors that ``Optimizer.load_state_dict`` cast, as saved.

    torch casts floating-point state to the type of its parameter, which would round
    the float32 averages of a bfloat16 model; and it shares memory with ``saved``.

    Args:
        saved: the state_dict that was loaded.
        groups: the optimizer's groups.
        state: the optimizer's state, changed in place.
    """
    numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
    params = chain.from_iterable(group["params"] for group in groups)
    for number, param in zip(numbers, params, strict=True):
        for key, value in saved["state"].get(number, {}).items():
            if isinstance(value, torch.Tensor):
                state[param][key] = value.detach().to(param.device).clone()
