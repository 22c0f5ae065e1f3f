"""Loading an optimizer's state without changing the types of its averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from vgaudit.errors import BadConfig


def check_saved(saved: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Checks that a state_dict has the options of this optimizer in every group.

    Raises:
        BadConfig: it is another optimizer's.
    """
    # torch adds this one to the defaults of an optimizer that was loaded before.
    needed = options.keys() - {"differentiable"}
    for index, group in enumerate(saved["param_groups"]):
        missing = sorted(needed - group.keys())
        if missing:
            raise BadConfig(
                f"group {index} of the state_dict lacks {', '.join(missing)}",
                hint="it was saved by another optimizer; start with a fresh state",
            )


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
