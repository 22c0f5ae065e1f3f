"""Which tensors carry data: those that come from the inputs of the model.

Every tensor that a watched call makes is marked. One without a mark was made
where no call is seen (numpy, an extension); if it is none of the model's own and
has one entry for each sample, it is taken for data.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vgaudit.probe.tensors import tensors_in

_MARK = "_vgaudit_from_data"


class Provenance:
    """Tells data from weights and constants during one forward pass.

    Args:
        model: the module that runs; its own tensors are never marked.
        samples: samples in the batch.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        self._samples = samples
        self._own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        for module in model.modules():
            values = module.__dict__.values()
            self._own.update(id(v) for v in values if isinstance(v, Tensor))

    def is_data(self, tensor: Tensor) -> bool:
        """Tells whether a tensor depends on the inputs."""
        known = getattr(tensor, _MARK, None)
        if known is not None:
            return bool(known)
        fits = tensor.dim() > 0 and tensor.shape[0] == self._samples
        return fits and id(tensor) not in self._own

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
