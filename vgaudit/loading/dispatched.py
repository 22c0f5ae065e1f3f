"""Models that accelerate has spread over devices, memory and disk, in one piece.

Their hooks stand where the modules' own ``forward`` was and move weights and data
during each call; weights that are elsewhere have no data on the module. What
measures or edits modules needs neither. accelerate itself need not be there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotLoad

GATHERED = "accelerate had spread the model; its weights were gathered on the CPU"
_HOOK = "_hf_hook"
_ON_THE_ROOT = frozenset(
    ("hf_device_map", "to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "hpu")
)
"""What accelerate puts on a model: its map, and movers that warn."""


def is_dispatched(model: nn.Module) -> bool:
    """Tells whether any module runs under a hook of accelerate."""
    return any(_HOOK in vars(module) for module in model.modules())


@torch.no_grad()
def gathered(model: nn.Module) -> nn.Module:
    """Returns ``model``, or, where it was dispatched, an ordinary copy on the CPU.

    Raises:
        CannotLoad: a weight of a dispatched model is nowhere to be found.
    """
    if not is_dispatched(model):
        return model
    hooks = {
        id(module.__dict__[_HOOK]): module.__dict__[_HOOK]
        for module in model.modules()
        if _HOOK in vars(module)
    }
    # The hooks hold the offloaded weights, which need no second copy.
    own = copy.deepcopy(model, dict(hooks))
    _load(own)
    for module in own.modules():
        hooked = vars(module).pop(_HOOK, None) is not None
        for name in ("_old_forward", "forward") if hooked else ():
            vars(module).pop(name, None)
        for name in _ON_THE_ROOT:
            vars(module).pop(name, None)
    return own


def _load(model: nn.Module) -> None:
    """Gives every parameter and buffer its data, on the CPU; ties stay."""
    # The old tensors are kept, so that none of their identities is given away.
    found: dict[int, tuple[Tensor, Tensor]] = {}
    tied: list[Tensor] = []
    sources = list(_sources(model))
    for path, module in model.named_modules():
        for name, tensor in _own_tensors(module):
            if id(tensor) not in found:
                full = f"{path}.{name}".lstrip(".")
                made = _like(tensor, _data(full, tensor, sources))
                if tensor.is_meta and _was_tied(module, name):
                    made = _tied_to(tied, made)
                found[id(tensor)] = tensor, made
            kept = module._parameters if name in module._parameters else module._buffers
            kept[name] = found[id(tensor)][1]


def _was_tied(module: nn.Module, name: str) -> bool:
    hook = vars(module).get(_HOOK)
    hooks = getattr(hook, "hooks", (hook,))
    return any(name in getattr(one, "tied_params_names", ()) for one in hooks)


def _tied_to(tied: list[Tensor], made: Tensor) -> Tensor:
    """Returns the tensor of another name that is the same.

    A hook knows that a name was one of several, but not of which: offloading gave
    each a tensor of its own.
    """
    for other in tied:
        if other.shape == made.shape and torch.equal(other, made):
            return other
    tied.append(made)
    return made


def _sources(model: nn.Module) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yields the path of each module whose hook knows weights, and those weights."""
    for path, module in model.named_modules():
        hook = vars(module).get(_HOOK)
        for one in getattr(hook, "hooks", (hook,)):
            weights = getattr(one, "weights_map", None)
            if weights is not None:
                yield path, weights


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    own = [*module._parameters.items(), *module._buffers.items()]
    return [(name, tensor) for name, tensor in own if tensor is not None]


def _data(
    name: str, tensor: Tensor, sources: list[tuple[str, Mapping[str, Tensor]]]
) -> Tensor:
    if not tensor.is_meta:
        return tensor.detach().cpu()
    for path, weights in sources:
        if path and not name.startswith(f"{path}."):
            continue
        try:
            value: Any = weights[name[len(path) :].lstrip(".")]
        except KeyError:
            continue
        return torch.as_tensor(value).to(device="cpu", dtype=tensor.dtype, copy=True)
    raise CannotLoad(
        f"{name} has no data: accelerate left it on the meta device",
        hint="load the model without a device map, or with all weights given",
    )


def _like(tensor: Tensor, data: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data
