"""Spreading a model over ranks by FSDP2: where it is cut, and what it is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotRun
from vgaudit.optim.sharding import is_sharded, local, sum_over_shards

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

__all__ = [
    "blocks",
    "forget_parameters",
    "gathered_parameters",
    "is_sharded",
    "is_spread",
    "local",
    "put",
    "rows_of",
    "shard",
    "shards_of",
    "whole_norms",
]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def shard(
    model: nn.Module, device: torch.device, size: int, *, scalars: bool = False
) -> nn.Module:
    """Returns the model with its parameters spread over all ranks, in place.

    Each block of a ``Sequential`` or ``ModuleList`` is gathered by itself when it
    runs, and the rest with the whole model. A block that shares a parameter with
    another belongs to the rest; so does a single layer in a list or dict, whose
    weight may be used without a call.

    Args:
        model: any module; its parameters become DTensors.
        device: where it runs.
        size: of the group.
        scalars: leave parameters without dimensions, which cannot be cut, to every
            rank; nobody averages their gradients.

    Raises:
        CannotRun: there are such parameters, and they are not to be left.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
    left = {name: p for name, p in model.named_parameters() if p.dim() == 0}
    if left and not scalars:
        raise CannotRun(
            f"FSDP2 cannot spread {next(iter(left))}, which has no dimensions",
            hint="give it the shape [1], or use --parallel ddp",
        )
    ignored = set(left.values())
    for block in blocks(model):
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(model, mesh=mesh, ignored_params=ignored)
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


def forget_parameters(model: nn.Module) -> None:
    """Frees the values of a model's parameters; shapes, types and buffers stay."""
    hulls: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                hull = nn.Parameter(
                    parameter.detach().to("meta"), requires_grad=parameter.requires_grad
                )
                module._parameters[name] = hulls.setdefault(id(parameter), hull)


def shards_of(model: nn.Module) -> list[FSDPModule]:
    """Returns the modules whose parameters are gathered together, outermost first."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def is_spread(model: nn.Module) -> bool:
    """Tells whether any parameter of a model is spread over ranks."""
    return any(map(is_sharded, model.parameters()))


def gathered_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that a sharded model computes with, by name.

    They are the same objects in every pass. Their gradients are those of this rank's
    batch, before they are averaged over the ranks; they hold values only while their
    block runs. Collective: gathers one block after the other.
    """
    found: dict[str, nn.Parameter] = {}
    for module in shards_of(model):
        module.unshard()
        named = model.named_parameters(remove_duplicate=False)
        found.update((name, p) for name, p in named if not is_sharded(p))
        module.reshard()
    return found


def whole_norms(norms: Sequence[float], tensors: Sequence[Tensor]) -> list[float]:
    """Returns the L2 norms of whole tensors from those of their local parts.

    The squares are summed over the ranks that hold different parts: the norm of one
    part is too small by about the root of their number. What is held by several ranks
    as it is, is counted once. Collective where any tensor is sharded.

    Args:
        norms: of the local part of each tensor.
        tensors: sharded or not.
    """
    if not any(map(is_sharded, tensors)):
        return list(norms)
    squares = [
        torch.tensor([norm * norm], dtype=torch.float64, device=local(tensor).device)
        for norm, tensor in zip(norms, tensors, strict=True)
    ]
    sums = sum_over_shards(squares, tensors)
    return [
        math.sqrt(float(total)) if is_sharded(tensor) else norm
        for norm, tensor, total in zip(norms, tensors, sums, strict=True)
    ]


def rows_of(parameter: Tensor) -> tuple[int, int]:
    """Returns the first row of a sharded parameter that this rank keeps, and the end.

    FSDP2 cuts along the first dimension, as ``torch.chunk`` does.
    """
    known = cast(Any, parameter)
    rows, mesh = parameter.shape[0], known.device_mesh
    if not all(placement.is_shard(0) for placement in known.placements):
        return 0, rows
    most = -(-rows // mesh.size())
    first = min(mesh.get_local_rank() * most, rows)
    return first, min(first + most, rows)


@torch.no_grad()
def put(parameter: Tensor, values: Tensor) -> None:
    """Writes this rank's part of whole values, which all ranks have, to a parameter."""
    if not is_sharded(parameter):
        parameter.copy_(values)
        return
    from torch.distributed.tensor import distribute_tensor

    known, here = cast(Any, parameter), local(parameter)
    spread = distribute_tensor(
        values.to(device=here.device, dtype=here.dtype),
        known.device_mesh,
        list(known.placements),
        src_data_rank=None,
    )
    here.copy_(local(spread))
