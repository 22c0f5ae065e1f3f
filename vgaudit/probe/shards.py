"""A model whose parameters are spread over ranks, as the measurement sees it.

FSDP2 gathers the parameters of a block when it runs, and frees them afterwards. What
arrives at a gathered parameter is the gradient of this rank's batch, whole and not
yet averaged: the same that one process has on that batch. It is measured there, one
block at a time. So no norm has to be put together from shards but those of the
weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch.utils.hooks import RemovableHandle

from vgaudit.distributed import sharding
from vgaudit.probe import provenance
from vgaudit.probe.parameters import Gradients, ParameterFigures
from vgaudit.probe.state import Twin, weights_of
from vgaudit.probe.tensors import tensors_in


class Shards(Twin):
    """The parameters of a sharded model; nobody else needs it, so it runs itself.

    Args:
        model: sharded by ``vgaudit.distributed.sharding``.
    """

    sharded = True

    def __init__(self, model: nn.Module) -> None:
        # No clones: what Twin makes of a model, this finds in it.
        self.state = {}
        self.quantized = False
        self.weights = weights_of(model)
        self._kept = dict(self.weights.parameters)
        gathered = sharding.gathered_parameters(model)
        self.weights.parameters.update(
            (name, gathered[name]) for name in self._kept if name in gathered
        )
        self._gradients = Gradients(zeros=True)

    @contextlib.contextmanager
    def standing_in(self, model: nn.Module) -> Iterator[None]:
        """Listens to the gradients as they arrive."""
        handles: list[Any] = []
        for name, parameter in self.parameters.items():
            if parameter.requires_grad:
                handle = parameter.register_hook(  # type: ignore[no-untyped-call]
                    self._arrived(name)
                )
                handles.append(handle)
        handles += mark_blocks(model)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def zero_grad(self) -> None:
        """Forgets the gradients of the last batch."""
        self._gradients = Gradients(zeros=True)
        for parameter in self._kept.values():
            parameter.grad = None

    @contextlib.contextmanager
    def listening(self, *, zeros: bool) -> Iterator[Gradients]:
        """Gives what the hooks on the gathered parameters add to."""
        yield self._gradients

    def figures(self, gradients: Gradients) -> dict[str, ParameterFigures]:
        """Returns the gradient of every parameter that got one."""
        return gradients.read()

    def fill(self, name: str, values: Tensor) -> None:
        """Gives a weight other values, on all ranks."""
        sharding.put(self._kept[name], values)

    def _arrived(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            with DisableTorchFunction():
                self._gradients.add(name, gradient)

        return hook


def mark_blocks(model: nn.Module) -> list[RemovableHandle]:
    """Lets the data be known as such inside every block, until it is undone."""
    return [
        module.register_forward_pre_hook(_data_again, with_kwargs=True)
        for module in sharding.shards_of(model)
        if isinstance(module, nn.Module)
    ]


def _data_again(_module: nn.Module, args: Any, kwargs: Any) -> None:
    """Marks what enters a block: FSDP2 hands it over as new tensors."""
    provenance.mark([t for t in tensors_in((args, kwargs)) if t.requires_grad])
