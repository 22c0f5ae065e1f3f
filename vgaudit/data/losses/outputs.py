"""Which tensor of an output the loss looks at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_PREFERRED = (
    "logits",
    "out",
    "output",
    "outputs",
    "prediction",
    "predictions",
    "pred",
    "y_hat",
    "logits_per_image",
    "prediction_logits",
    "last_hidden_state",
)
"""Names under which frameworks return what a loss compares with labels."""


def main_output(output: Any) -> Tensor | None:
    """Returns the tensor that a loss compares with the labels, or None.

    A tensor is itself. A mapping or dataclass gives ``logits``, ``out`` …, else
    its first floating tensor of at least one dimension. A tuple gives its first
    one (logits before auxiliary logits, outputs before states). A list of
    tensors of one shape is a sequence of refinements: it gives the last.
    """
    if isinstance(output, Tensor):
        return output
    named = _named(output)
    if named is not None:
        for name in _PREFERRED:
            found = main_output(named[name]) if name in named else None
            if found is not None:
                return found
        return _first(named.values())
    if isinstance(output, list) and _refinements(output):
        last: Tensor = output[-1]
        return last
    return _first(output) if isinstance(output, (list, tuple)) else None


def own_loss(output: Any, *, whole: bool = False) -> Tensor | None:
    """Returns the loss that a model computed itself, or None.

    Understands ``output.loss``, ``{"loss": …}``, a dict of scalar losses (their
    sum), a scalar, and a tuple that starts with one. Losses beside other outputs
    (``aux_loss``) count as well, summed, but not where ``whole`` is asked for.
    """
    if isinstance(output, Tensor):
        return output.reshape(()) if _scalar(output) else None
    named = _named(output)
    if named is not None:
        return _named_loss(named, whole=whole)
    if isinstance(output, (list, tuple)) and output and _scalar(output[0]):
        first: Tensor = output[0]
        return first.reshape(())
    return None


def _named_loss(named: Mapping[Any, Any], *, whole: bool) -> Tensor | None:
    if _scalar(named.get("loss")):
        loss: Tensor = named["loss"]
        return loss.reshape(())
    scalars = {name: item for name, item in named.items() if _scalar(item)}
    if len(scalars) < len(named):
        if whole:
            return None
        scalars = {
            name: item for name, item in scalars.items() if "loss" in str(name).lower()
        }
    if not scalars:
        return None
    return torch.stack([item.reshape(()) for item in scalars.values()]).sum()


def _named(output: Any) -> Mapping[Any, Any] | None:
    """Returns the fields of a mapping, named tuple or dataclass that are set."""
    if isinstance(output, Mapping):
        fields: Mapping[Any, Any] = output
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        fields = dict(zip(output._fields, output, strict=True))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [spec.name for spec in dataclasses.fields(output)]
        fields = {name: getattr(output, name, None) for name in names}
    else:
        return None
    return {name: item for name, item in fields.items() if item is not None}


def _first(items: Any) -> Tensor | None:
    """Returns the first floating tensor with dimensions, else the first tensor."""
    found = list(_tensors(items))
    shaped = [item for item in found if item.dim() > 0 and _floating(item)]
    return next(iter(shaped or found), None)


def _tensors(items: Any) -> Iterator[Tensor]:
    for item in items:
        found = main_output(item)
        if found is not None:
            yield found


def _refinements(items: list[Any]) -> bool:
    return (
        len(items) > 1
        and all(isinstance(item, Tensor) for item in items)
        and len({item.shape for item in items}) == 1
    )


def _scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and _floating(value)


def _floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
