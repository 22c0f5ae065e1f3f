"""Hooks of the user's own, which a further backward pass would run once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vgaudit.probe.recording import Recording

_ON_TENSORS = {
    Tensor.register_hook: "a hook on a tensor would run once more",
    Tensor.retain_grad: "retain_grad would keep another gradient",
}
_ON_SAVED = "saved tensors would be unpacked (checkpointed, loaded …) once more"


def note(
    recording: Recording,
    func: Callable[..., Any],
    args: Sequence[Any],
    made: Sequence[Tensor],
) -> None:
    """Notes the nodes that a call of a torch function puts hooks on.

    Args:
        recording: takes the nodes.
        func: what was called.
        args: its arguments.
        made: what it returned.
    """
    why = _ON_TENSORS.get(func)
    if why is not None:
        node = args[0].grad_fn
        if node is not None:
            recording.hooked[node] = why
    elif torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        nodes = (tensor.grad_fn for tensor in made)
        recording.hooked.update((node, _ON_SAVED) for node in nodes if node is not None)
