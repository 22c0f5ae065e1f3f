"""Spreading a model over processes by FSDP2: where it is cut, and what follows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgaudit.optim.sharding import is_sharded

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def shard(model: nn.Module, device: torch.device, size: int) -> nn.Module:
    """Returns the model with its parameters spread over all ranks, in place.

    Each block of a ``Sequential`` or ``ModuleList`` is gathered by itself when it
    runs, and the rest with the whole model. A block that shares a parameter with
    another belongs to the rest; so does a single layer in a list or dict, whose
    weight may be used without a call.

    Args:
        model: any module; its parameters become DTensors.
        device: where it is trained.
        size: of the group.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the repeated parts of a model that can be gathered by themselves."""
    # A tied parameter is in several modules, or in one under several names.
    owners = Counter(
        id(p) for m in model.modules() for p in m.parameters(recurse=False)
    )
    found: list[nn.Module] = []
    for block in _outermost(model):
        own = list(block.parameters())
        inner = Counter(
            id(p) for m in block.modules() for p in m.parameters(recurse=False)
        )
        tied = any(owners[id(p)] > inner[id(p)] for p in own)
        if own and not tied and block not in found:
            found.append(block)
    return found


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, _CONTAINERS):
        yield from _members(module)
        return
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            yield from _members(child)
        else:
            yield from _outermost(child)


def _members(container: nn.Module) -> Iterator[nn.Module]:
    for block in container.children():
        if isinstance(block, _CONTAINERS):
            yield from _members(block)
        elif isinstance(container, nn.Sequential) or any(block.children()):
            yield block


def spread_like(value: Any, parameter: Tensor) -> Any:
    """Returns a whole tensor of a parameter's shape, spread as the parameter is.

    Other values, and those of parameters that are not spread, come back as they are.
    """
    if not isinstance(value, Tensor) or not is_sharded(parameter):
        return value
    if value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    known = cast(Any, parameter)
    device = cast(Tensor, known.to_local()).device
    return distribute_tensor(
        value.to(device), known.device_mesh, list(known.placements)
    )
