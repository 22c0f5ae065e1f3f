"""What loading gives: a module, where it came from, and an input that fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.distributed.sharding import is_sharded
from vgaudit.flow import Target

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInput:
    """One argument of ``forward``, one sample of it.

    Attributes:
        shape: without the batch dimension.
        name: keyword of ``forward``; empty where it goes by position.
        dtype: ``float32``, or ``int64`` for numbers of tokens.
        high: integers are drawn below it; 0 for floating point.
    """

    shape: tuple[int, ...]
    name: str = ""
    dtype: str = "float32"
    high: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputHint:
    """What an architecture takes, as its own metadata states it.

    Attributes:
        inputs: the arguments of ``forward``, in order.
        task: ``image``, ``video``, ``detection`` (a list of images, and targets
            in train mode), ``segmentation``, ``optical-flow``, ``text``,
            ``audio`` or ``other``.
        source: where the statement comes from.
        batch: the only batch size that fits; None where any does.
    """

    inputs: tuple[ExampleInput, ...]
    task: str
    source: str
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A module with its origin.

    Attributes:
        module: on the CPU, in the mode its source left it in.
        target: where it came from, and what was noticed on the way.
        example: an input that fits, where the architecture tells.
    """

    module: nn.Module
    target: Target
    example: InputHint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model comes from, before its module is known.

    Attributes:
        spec: as the user gave it.
        format, tier, sha256: as in ``vgaudit.flow.Target``.
        notes, archive_notes: statements for the user.
    """

    spec: str
    format: str
    tier: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    archive_notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReport:
    """How the keys of a file met those of an architecture."""

    stripped_prefixes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def finish(
    module: nn.Module,
    origin: Origin,
    *,
    architecture: str = "",
    keys: KeyReport | None = None,
    example: InputHint | None = None,
) -> LoadedModel:
    """Returns the loaded model with its parameters counted and checked."""
    keys = keys or KeyReport()
    parameters = list(module.parameters())
    target = Target(
        spec=origin.spec,
        format=origin.format,
        trust_tier=origin.tier,
        architecture=architecture or type(module).__name__,
        parameters=sum(map(numel, parameters)),
        trainable=sum(numel(p) for p in parameters if p.requires_grad),
        sha256=origin.sha256,
        stripped_prefixes=keys.stripped_prefixes,
        notes=origin.notes + keys.notes,
        archive_notes=origin.archive_notes,
        nonfinite_weights=nonfinite(module),
        missing_keys=keys.missing,
        unexpected_keys=keys.unexpected,
    )
    return LoadedModel(module=module, target=target, example=example)


def numel(tensor: Tensor) -> int:
    """Returns the number of elements; 0 for a lazy parameter without a shape."""
    return 0 if nn.parameter.is_lazy(tensor) else tensor.numel()


@torch.no_grad()
def nonfinite(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of parameters and buffers whose NaN or infinity is a defect.

    Infinity in a buffer is none: masks hold it, and so do the extremes and the best
    values so far that start there. Among running statistics it is what overflowed.
    """
    names = [name for name, p in module.named_parameters() if not is_finite(p)]
    buffers = dict(module.named_buffers())
    norms = {_owner(name) for name in buffers if name.endswith(_STATISTICS)}
    for name, buffer in buffers.items():
        if not is_finite(buffer) and (_owner(name) in norms or _holds_nan(buffer)):
            names.append(name)
    return tuple(names)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _holds_nan(tensor: Tensor) -> bool:
    """Returns whether an element is NaN; infinity of a shard counts as one."""
    if is_sharded(tensor):
        return True
    if tensor.dtype.itemsize == 1:  # float8 has no isnan
        tensor = tensor.float()
    return bool(tensor.isnan().any())


def is_finite(tensor: Tensor) -> bool:
    """Returns whether every element is finite, in one pass without a copy."""
    if nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.numel() == 0:
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point():
        return True
    if tensor.dtype.itemsize == 1:  # float8 has no aminmax
        tensor = tensor.float()
    if is_sharded(tensor):
        # No aminmax for DTensors before torch 2.11; NaN and inf times 0 are NaN.
        whole: Any = (tensor * 0).sum()
        return bool(whole.full_tensor().isfinite())
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())
