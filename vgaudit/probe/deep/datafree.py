"""Mean-field theory without data: the gradient's factors from weights and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vgaudit.probe import operations
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.deep import gauss
from vgaudit.probe.deep.energy import Jump
from vgaudit.probe.deep.factors import meeting, numel, shape
from vgaudit.probe.deep.meanfield import Signals
from vgaudit.probe.graph import Graph

_NORMS = frozenset(
    {"NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm"}
)
_KEEPS = frozenset(
    {
        "Add", "Sub", "Expand", "Index", "MaxPool2DWithIndices", "MaxPool3DWithIndices",
        "AdaptiveMaxPool2D",
    }
)  # fmt: skip
_MEANS = frozenset({"Mean", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D"})


class DataFree:
    """The factor of each operation on ‖δ‖², from the signals of the theory.

    Args:
        graph: the graph, of real or of fake tensors.
        blueprint: its names.
        weights: the parameters by name.
        kinds: key of an activation call → canonical name of the activation.
    """

    def __init__(
        self,
        graph: Graph,
        blueprint: Blueprint,
        weights: Mapping[str, Tensor],
        kinds: Mapping[str, str],
    ) -> None:
        self._graph, self._plan = graph, blueprint.plan
        self.signals = Signals(graph, blueprint, weights, kinds)

    def __call__(self, node: int, position: int) -> float | None:
        """Returns the factor along an edge; None without theory."""
        kind, operation = self._graph.kinds[node], self._graph.nodes[node]
        if node in self._plan.weights:
            gain = self.signals.gain(node)
            return None if gain is None else gain * self._borders(node)
        if kind in _NORMS:
            return self._norm(node)
        if operations.is_reshape(kind) or kind in _KEEPS:
            return 1.0
        if kind in ("AvgPool2D", "AvgPool3D"):
            return self._average(operation)
        child, number = operation.next_functions[position]
        if child is None or kind not in (*_MEANS, "Cat", "Stack"):
            return None
        share = numel(operation) / numel(child, number)
        return min(share, 1.0) if kind in _MEANS else 1 / share

    @staticmethod
    def _average(operation: object) -> float:
        kernel: Any = operation._saved_kernel_size  # type: ignore[attr-defined]
        sizes = tuple(int(size) for size in kernel)
        return 1.0 / math.prod(sizes if len(sizes) > 1 else sizes * 2)

    def _norm(self, node: int) -> float | None:
        given = self.signals.given(node)
        if len(given) != 1 or given[0] is None:
            return None
        batch = self._graph.kinds[node].endswith("BatchNorm")
        var = given[0].within if batch else given[0].var
        return self.signals.scale(node) / var if var > 0 else None

    def _borders(self, node: int) -> float:
        """Returns the share of a convolution's taps that meet no padding."""
        operation, weight = self._graph.nodes[node], self.signals.weight(node)
        child, number = (*operation.next_functions[0],)
        convolves = self._graph.kinds[node] == "Convolution"
        if not convolves or weight is None or child is None:
            return 1.0
        out, source, share = shape(operation), shape(child, number), 1.0
        for dim in range(weight.dim() - 2):
            stride, padding, dilation = (
                int(getattr(operation, f"_saved_{name}")[dim])
                for name in ("stride", "padding", "dilation")
            )
            size = weight.shape[2 + dim]
            met = meeting(
                out[2 + dim], source[2 + dim], size, (stride, padding, dilation)
            )
            share *= met / (out[2 + dim] * size)
        return share

    def jumps(self) -> dict[int, Jump]:
        """Returns the activations with the factor that the theory gives them."""
        return {
            node: Jump(entry, self._slope(name, entry))
            for node, (entry, name) in self.signals.activations.items()
            if entry in self.signals.at
        }

    def _slope(self, name: str, entry: int) -> float | None:
        given = self.signals.at.get(entry)
        if given is None or not gauss.known(name):
            return None
        return gauss.integrals(name, given.mean, given.var).slope_square
