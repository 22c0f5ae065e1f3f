"""Lazy modules: their weights have no shape before the first forward pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun


def materialised(model: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """Returns ``model``, or, where it is lazy, a copy that ran once.

    Raises:
        CannotRun: it is lazy and cannot be copied or run.
    """
    waiting = _waiting(model)
    if not waiting:
        return model
    try:
        made = _copied(model)
        with torch.no_grad():
            made(*batches[0].args, **batches[0].kwargs)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise CannotRun(
            f"{waiting[0]} has no shape yet, and a first forward pass failed: "
            f"{text[0] if text else type(error).__name__}",
            hint="run the model once on a batch before it is scanned or saved",
        ) from error
    return made


def spare(model: nn.Module) -> nn.Module:
    """Returns ``model``, or, where it is lazy, a copy that may be given its shapes.

    Raises:
        CannotRun: it is lazy and cannot be copied.
    """
    waiting = _waiting(model)
    if not waiting:
        return model
    try:
        return _copied(model)
    except Exception as error:
        raise CannotRun(
            f"{waiting[0]} has no shape yet, and the model cannot be copied: "
            f"{str(error).strip() or type(error).__name__}",
            hint="run the model once on a batch before it is scanned or saved",
        ) from error


def _waiting(model: nn.Module) -> list[str]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return [name for name, tensor in tensors if is_lazy(tensor)]


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model, _fresh_buffers(model))


def _fresh_buffers(model: nn.Module) -> dict[int, Tensor]:
    """Returns what stands for the lazy buffers: torch cannot copy them."""
    return {
        id(buffer): UninitializedBuffer(  # type: ignore[call-arg]
            device=buffer.device, dtype=buffer.dtype
        )
        for buffer in model.buffers()
        if is_lazy(buffer)
    }
