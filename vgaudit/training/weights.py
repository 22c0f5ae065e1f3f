"""The numbers of a model, taken out and put back: parameters and all buffers."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of every parameter and buffer by name, in main memory."""
    return {
        name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(model)
    }


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies what ``snapshot`` returned into a model of the same form.

    Raises:
        KeyError: a tensor is missing.
    """
    with torch.no_grad():
        for name, tensor in _tensors(model):
            tensor.copy_(weights[name])


@contextlib.contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Puts the values of all buffers back when the block ends."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def form(model: nn.Module) -> tuple[str, ...]:
    """Returns name, shape and type of every tensor, as text."""
    return tuple(
        f"{name} {'x'.join(map(str, tensor.shape))} {tensor.dtype}"
        for name, tensor in _tensors(model)
    )


def digest(model: nn.Module) -> str:
    """Returns a hash over the values of a model."""
    found = hashlib.sha256()
    for name, tensor in _tensors(model):
        found.update(name.encode())
        found.update(raw(tensor))
    return found.hexdigest()


def raw(tensor: Tensor) -> memoryview:
    """Returns the bytes of a tensor, without a copy where it lies in main memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
