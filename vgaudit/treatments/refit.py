"""Keeps a trained model's function while a layer is rescaled, as well as it can be.

Scaling a layer in front of a saturating activation changes what follows. The next
Linear layer is refitted by ridge regression: its old outputs on the data from its new
inputs, in float64, centred. Where the activation kept the information, the function
stays nearly the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.treatments.running import call, hooked, observing

_RIDGE = 1e-5
"""Of the mean diagonal of the Gram matrix."""
_LEAST = 1e-100
"""Keeps the system solvable where the inputs are constant."""
_ROWS = 1 << 16
_PER_INPUT = 4
"""Samples that each input of a refitted layer needs, against overfitting."""


@dataclass(slots=True)
class _Seen:
    """Inputs and outputs of a layer on the data, ``[rows, features]``."""

    inputs: Tensor
    outputs: Tensor


class Refit:
    """Refits one Linear layer after the layer before it has changed.

    Args:
        model: the model.
        path: the Linear layer, with a bias.
        batches: the data, the same before and after.
    """

    def __init__(self, model: nn.Module, path: str, batches: Sequence[Batch]) -> None:
        self._model, self._path, self._batches = model, path, batches
        self._before = self._look()

    @torch.no_grad()
    def apply(self) -> str:
        """Refits the layer in place and says how well, or why not."""
        layer = self._model.get_submodule(self._path)
        assert isinstance(layer, nn.Linear)
        before, after = self._before, self._look()
        if before is None or after is None or len(before.outputs) != len(after.inputs):
            return f"{self._path} not refitted: how often it runs depends on the data"
        x, y = after.inputs, before.outputs
        if x.shape[0] < _PER_INPUT * x.shape[1]:
            return (
                f"{self._path} not refitted: {x.shape[0]} samples for {x.shape[1]} "
                "inputs; give more --batches"
            )
        weight, bias = ridge(x, y)
        rest = y - (x @ weight.T + bias)
        total = (y - y.mean(0)).square().sum()
        kept = 1.0 - float(rest.square().sum() / total) if total > 0 else 0.0
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        return (
            f"{self._path} refitted, {100 * kept:.1f} % of its outputs' variance kept"
        )

    def _look(self) -> _Seen | None:
        """Returns what enters and leaves the layer; None if it does not run."""
        seen: list[_Seen] = []

        def make(_path: str) -> Any:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
                seen.append(_Seen(args[0].flatten(0, -2), out.flatten(0, -2)))

            return hook

        with observing(self._model, "train"), hooked(self._model, [self._path], make):
            for batch in self._batches:
                call(self._model, batch)
        if not seen:
            return None
        x = torch.cat([part.inputs for part in seen]).double()
        y = torch.cat([part.outputs for part in seen]).double()
        step = max(1, x.shape[0] // _ROWS)
        return _Seen(x[::step], y[::step])


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weight ``[out, in]`` and bias of the ridge regression of y on x."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred
    penalty = (_RIDGE * gram.diagonal().mean()).clamp_min(_LEAST)
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x
