"""Clones of a model's tensors, without memory of their own as long as nobody writes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PAGE = 1 << 12
"""Bytes from which the clone of a parameter shares memory with its original, until one
of them is written to. What is smaller takes no page of its own."""

_LARGE = 1 << 20
"""The same of other tensors: buffers are written to, more often than not."""


def clone_of(
    tensor: Tensor, *, device: torch.device, dtype: torch.dtype | None, unfreeze: bool
) -> Tensor:
    """Returns a tensor of the same values and kind that stands in for another.

    Args:
        tensor: a parameter, a buffer or another tensor of a module.
        device: where the clone is needed.
        dtype: type of its real numbers; None for its own.
        unfreeze: let parameters need a gradient that need none.
    """
    target = tensor.dtype
    if dtype is not None and tensor.is_complex():
        target = dtype.to_complex()
    elif dtype is not None and tensor.is_floating_point():
        target = dtype
    clone = _shared(tensor, device, target)
    if clone is None:
        clone = tensor.detach().to(device=device, dtype=target, copy=True)
    if not isinstance(tensor, nn.Parameter):
        return clone.requires_grad_(tensor.is_leaf and tensor.requires_grad)
    floating = clone.is_floating_point() or clone.is_complex()
    wanted = floating and (tensor.requires_grad or unfreeze)
    return nn.Parameter(clone, requires_grad=wanted)


def _shared(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Returns a clone that takes memory only when it or the original is written to.

    None where that saves little, or torch cannot do it: for memory of other libraries,
    and for parts of a larger storage, all of which would be copied then.
    """
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.dtype != dtype or tensor.is_meta or tensor.is_quantized:
        return None
    size = tensor.numel() * tensor.element_size()
    here = tensor.device == torch.empty(0, device=device).device
    worth = PAGE if isinstance(tensor, nn.Parameter) else _LARGE
    if not here or size < worth or tensor.untyped_storage().nbytes() != size:
        return None
    try:
        return torch._lazy_clone(tensor.detach())
    except RuntimeError:
        return None
