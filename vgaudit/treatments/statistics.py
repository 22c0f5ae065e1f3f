"""Pre-activations of layers on the data: what calibration goes by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.probe.tensors import tensors_in
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.running import Stop, call, observing

_ROWS = 1 << 20
"""Elements of each call that are kept for the quantile."""
_STUCK = 0.05
"""Share of a layer's pre-activations that varies between samples, below it stuck."""

QUANTILE = 0.99


@dataclass(slots=True)
class _Sums:
    """Count, sum and sum of squares per channel, in float64; and the whole range."""

    count: int = 0
    total: Tensor | None = None
    squares: Tensor | None = None
    low: float = math.inf
    high: float = -math.inf

    def add(self, rows: Tensor) -> None:
        wide = rows.double()
        total, squares = wide.sum(0), wide.square().sum(0)
        self.count += rows.shape[0]
        low, high = wide.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares

    def moments(self) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation per channel."""
        assert self.total is not None
        assert self.squares is not None
        mean = self.total / self.count
        var = (self.squares / self.count - mean.square()).clamp_min(0.0)
        return mean, var.sqrt()


@dataclass(slots=True)
class LayerStatistics:
    """What a layer takes and gives, over all batches and calls.

    Attributes:
        path: the module.
        sample: pre-activations, ``[rows, units]``, evenly drawn.
    """

    path: str
    inputs: _Sums = field(default_factory=_Sums)
    outputs: _Sums = field(default_factory=_Sums)
    sample: list[Tensor] = field(default_factory=list)

    @property
    def mean(self) -> Tensor:
        """Mean of each unit's pre-activation, float64."""
        return self.outputs.moments()[0]

    def quantile(self, *, centred: bool) -> float:
        """Returns the 99 % quantile of |f|, or of |f − mean| per unit."""
        rows = torch.cat(self.sample).double()
        if centred:
            rows = rows - self.mean
        flat = rows.abs().flatten()
        rank = max(1, round(QUANTILE * flat.numel()))
        return float(flat.kthvalue(rank).values)

    @property
    def variation(self) -> float:
        """Root mean square of the units' deviations over that of f itself."""
        mean, std = self.outputs.moments()
        size = (mean.square() + std.square()).mean().sqrt()
        return float(std.square().mean().sqrt() / size) if size > 0 else 0.0


def survey(
    model: nn.Module, targets: Sequence[LayerTarget], batches: Iterable[Batch]
) -> dict[str, LayerStatistics]:
    """Returns the statistics of layers as they are now.

    A pass ends when the last of the layers has run as often as planned.
    """
    found = {target.path: LayerStatistics(target.path) for target in targets}
    planned = {target.path: target.calls for target in targets}
    for batch in batches:
        _watch(model, found, dict(planned), batch)
    return found


def _watch(
    model: nn.Module,
    found: dict[str, LayerStatistics],
    left: dict[str, int],
    batch: Batch,
) -> None:
    def hook_for(path: str) -> Any:
        statistics = found[path]

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            axis = unit_axis(module)
            statistics.inputs.add(_rows(next(tensors_in(args)), axis))
            rows = _rows(next(tensors_in(output)), axis)
            statistics.outputs.add(rows)
            step = max(1, rows.numel() // _ROWS)
            statistics.sample.append(rows[::step].clone())
            left[path] -= 1
            if all(count <= 0 for count in left.values()):
                raise Stop

        return hook

    with observing(model, "train"):
        handles = [
            model.get_submodule(path).register_forward_hook(hook_for(path))
            for path in found
        ]
        try:
            call(model, batch)
        except Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()


def unit_axis(module: nn.Module) -> int:
    """Returns the axis of the units in a layer's output, from the end."""
    if isinstance(module, (nn.Linear, nn.RNNBase)):
        return -1
    weight = module.weight
    assert isinstance(weight, Tensor)
    return -(weight.dim() - 1)


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.detach().movedim(axis, -1).flatten(0, -2)


def is_stuck(found: Iterable[LayerStatistics]) -> bool:
    """Tells whether the signal dies on its way: some layer hardly varies."""
    return any(statistics.variation < _STUCK for statistics in found)


def check_alive(statistics: LayerStatistics, *, centred: bool) -> float:
    """Returns the quantile of a layer that has a signal.

    Raises:
        CannotRewrite: its pre-activations are constant or not finite.
    """
    size = statistics.quantile(centred=centred)
    floor = torch.finfo(torch.float32).eps * float(statistics.mean.abs().max())
    if not size > floor or size == float("inf"):
        raise CannotRewrite(
            f"VG701 {statistics.path}: its pre-activations do not vary on the data",
            hint="give real inputs with --data, or leave the layer out with --skip",
        )
    return size
