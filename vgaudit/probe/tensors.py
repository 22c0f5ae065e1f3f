"""Finding tensors in whatever a model takes and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_MAX_DEPTH = 32


def tensors_in(value: Any, *, depth: int = 0) -> Iterator[Tensor]:
    """Yields every tensor in nested containers, in a stable order.

    Understands tensors, mappings, sequences, named tuples, dataclasses and
    objects that keep tensors in ``__dict__`` (``PackedSequence``, model outputs).
    """
    if isinstance(value, Tensor):
        yield value
    elif depth > _MAX_DEPTH or value is None or isinstance(value, (str, bytes)):
        return
    else:
        for child in _children(value):
            yield from tensors_in(child, depth=depth + 1)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for spec in dataclasses.fields(value):
            yield getattr(value, spec.name, None)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns ``value`` with every tensor replaced; containers are rebuilt.

    Containers of an unknown kind are returned as they are.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return _map_dict(value, change)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            spec.name: map_tensors(getattr(value, spec.name), change)
            for spec in dataclasses.fields(value)
            if spec.init
        }
        return dataclasses.replace(value, **changed)
    return value


def _map_dict(value: dict[Any, Any], change: Callable[[Tensor], Tensor]) -> Any:
    changed = {key: map_tensors(item, change) for key, item in value.items()}
    if type(value) is dict:
        return changed
    try:
        return type(value)(changed)
    except TypeError:
        return changed


def differentiable(value: Any) -> list[Tensor]:
    """Returns the distinct floating or complex tensors that need a gradient."""
    seen: set[int] = set()
    found = []
    for tensor in tensors_in(value):
        wanted = tensor.requires_grad and (
            tensor.is_floating_point() or tensor.is_complex()
        )
        if wanted and id(tensor) not in seen and tensor.numel() > 0:
            seen.add(id(tensor))
            found.append(tensor)
    return found


def cast(value: Any, *, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Returns a copy of ``value`` on ``device``; floats become ``dtype`` if given.

    Complex tensors take the complex type of the same precision. Tensors are
    always fresh, so that an in-place forward cannot write into the user's data.
    """

    def change(tensor: Tensor) -> Tensor:
        moved = tensor.detach().to(device=device, dtype=_target(tensor, dtype))
        return moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved

    return map_tensors(value, change)


def wide(values: Tensor) -> Tensor:
    """Returns half-precision values in float32, others as they are."""
    half = values.dtype in (torch.float16, torch.bfloat16)
    return values.float() if half else values


def _target(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return tensor.dtype
    if tensor.is_complex():
        return dtype.to_complex()
    return dtype if tensor.is_floating_point() else tensor.dtype
