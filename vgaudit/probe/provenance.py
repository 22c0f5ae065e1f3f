"""Which tensors carry data: those that come from the inputs of the model.

Every tensor that a watched call makes is marked. One without a mark was made
where no call is seen (numpy, an extension); if it is none of the model's own and
has one entry for each sample, it is taken for data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vgaudit.probe.tensors import tensors_in

_MARK = "_vgaudit_from_data"


class Provenance:
    """Tells data from weights and constants during one forward pass.

    Args:
        samples: samples in the batch.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._own: set[int] = set()

    def add_own(self, tensors: Iterable[Tensor]) -> None:
        """Declares tensors to be weights or constants; they are never marked."""
        self._own.update(id(tensor) for tensor in tensors)

    def add_all_of(self, model: nn.Module) -> None:
        """Declares all tensors that a model has now to be its own."""
        self.add_own((*model.parameters(), *model.buffers()))
        for module in model.modules():
            values = module.__dict__.values()
            self.add_own(value for value in values if isinstance(value, Tensor))

    def is_data(self, tensor: Tensor) -> bool:
        """Tells whether a tensor depends on the inputs."""
        known = getattr(tensor, _MARK, None)
        if known is not None:
            return bool(known)
        if isinstance(tensor, nn.Parameter) or id(tensor) in self._own:
            return False
        return tensor.dim() > 0 and tensor.shape[0] == self._samples

    def note(self, made: Tensor, *, data: bool) -> None:
        """Notes what a call made of."""
        if id(made) not in self._own:
            setattr(made, _MARK, data)


def mark(value: Any) -> None:
    """Declares all tensors in ``value`` to be data."""
    for tensor in tensors_in(value):
        setattr(tensor, _MARK, True)


def unmark(value: Any) -> None:
    """Takes the marks of ``mark`` away."""
    for tensor in tensors_in(value):
        tensor.__dict__.pop(_MARK, None)
