"""How one element of a data set becomes one call of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from vgaudit.data.arrays import as_tensor
from vgaudit.data.batch import Batch
from vgaudit.data.inputs.signature import describe, positional_range, required, takes
from vgaudit.errors import CannotRun

LABELS = ("labels", "label", "targets", "target", "y")
"""Names of labels in a dict, and of arguments that take them."""

_MAX_DEPTH = 32


def to_batch(
    element: Any, model: nn.Module | None = None, *, keep_labels: bool = True
) -> Batch:
    """Returns the call that an element of a data set stands for.

    ``(x, y)`` calls ``model(x)`` with labels ``y``; a dict calls
    ``model(**element)`` with its labels taken out; a tensor calls
    ``model(element)``. A tuple as long as ``forward`` has required arguments is
    all inputs. Labels stay among the arguments, too, where ``forward`` has an
    argument for them, because such models compute their own loss; not with
    ``keep_labels`` off.

    Raises:
        CannotRun: a tuple has fewer members than ``forward`` needs, or the
            element holds no tensor.
    """
    if isinstance(element, Batch):
        return element
    element = _as_tensors(element)
    if next(tensors(element), None) is None:
        raise CannotRun(
            f"a batch holds no tensor: it is of type {type(element).__name__}",
            hint="a batch is a tensor, a tuple (inputs, labels) or a dict of tensors",
        )
    if isinstance(element, Mapping):
        return _from_mapping(element, model, keep_labels)
    if isinstance(element, (tuple, list)) and not hasattr(element, "_fields"):
        return _from_sequence(tuple(element), model, keep_labels)
    return Batch(args=(element,), size=count_samples(element))


def _from_mapping(
    element: Mapping[Any, Any], model: nn.Module | None, keep_labels: bool
) -> Batch:
    values = {str(name): value for name, value in element.items()}
    name = next((label for label in LABELS if label in values), None)
    wanted = [] if model is None else [parameter.name for parameter in required(model)]
    if model is not None and len(wanted) == 1 and not takes_members(model, values):
        labels = values.get(name) if name else None  # forward(batch) may read them
        return Batch(args=(values,), labels=labels, size=count_samples(values))
    labels = values.get(name) if name else None
    stays = model is not None and name is not None and takes(model, name)
    if name and not (stays and (keep_labels or name in wanted)):
        values.pop(name)
    return Batch(kwargs=values, labels=labels, size=count_samples(values))


def takes_members(model: nn.Module, values: Mapping[str, Any]) -> bool:
    """Tells whether ``forward`` takes the inputs of a dict by their names."""
    parameters = [p for p in required(model) if p.kind is not p.VAR_KEYWORD]
    if not parameters:
        return True
    names = [name for name in values if name not in LABELS]
    return all(p.name in values for p in parameters) or any(
        takes(model, name) for name in names
    )


def _from_sequence(
    element: tuple[Any, ...], model: nn.Module | None, keep_labels: bool
) -> Batch:
    if len(element) == 1:
        return to_batch(element[0], model, keep_labels=keep_labels)
    if len(element) == 2 and isinstance(element[0], Mapping):
        named = _from_mapping(element[0], model, keep_labels)
        return dataclasses.replace(named, labels=element[1])
    least = 1 if model is None else positional_range(model)[0]
    if len(element) < least and model is not None:
        raise CannotRun(
            f"a batch has {len(element)} members, and the model needs {least} inputs",
            hint=f"its signature is {describe(model)}",
        )
    several = len(element) == 2 and _are_inputs(element[0], least)
    if model is not None and len(element) == least and not several:
        return Batch(args=element, size=count_samples(element))
    inputs = tuple(element[0]) if several else element[:-1]
    labels = element[-1]
    kwargs: dict[str, Any] = {}
    if model is not None and keep_labels:
        name = next((label for label in LABELS if takes(model, label)), None)
        if name is not None:
            kwargs[name] = labels
    return Batch(args=inputs, kwargs=kwargs, labels=labels, size=count_samples(inputs))


def _are_inputs(value: Any, least: int) -> bool:
    """Tells ``((x1, x2), y)`` for a model of several inputs."""
    return isinstance(value, (tuple, list)) and len(value) == least > 1


def tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Yields the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif depth < _MAX_DEPTH:
        children: Any = ()
        if isinstance(value, Batch):
            children = (value.args, value.kwargs, value.labels)
        elif isinstance(value, Mapping):
            children = value.values()
        elif isinstance(value, (list, tuple)):
            children = value
        elif hasattr(value, "__dataclass_fields__"):
            children = [
                getattr(value, name, None) for name in value.__dataclass_fields__
            ]
        for child in children:
            yield from tensors(child, depth + 1)


def count_samples(value: Any) -> int:
    """Returns how many samples arguments hold: the extent of the first of them.

    A list or tuple of tensors of three dimensions inside is a list of images,
    as detectors take.
    """
    if isinstance(value, (tuple, Mapping)):
        members = list(value.values() if isinstance(value, Mapping) else value)
        value = members[0] if members else None
    if isinstance(value, (list, tuple)) and _are_images(value):
        return len(value)
    first = next(tensors(value), None)
    return first.shape[0] if first is not None and first.dim() else 1


def _are_images(items: Any) -> bool:
    shaped = [isinstance(item, Tensor) and item.dim() == 3 for item in items]
    return bool(shaped) and all(shaped)


def _as_tensors(value: Any) -> Any:
    """Returns NumPy arrays, also inside plain containers, as tensors."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return as_tensor(value)
    if type(value) in (tuple, list):
        return type(value)(_as_tensors(item) for item in value)
    if type(value) is dict:
        return {name: _as_tensors(item) for name, item in value.items()}
    return value
