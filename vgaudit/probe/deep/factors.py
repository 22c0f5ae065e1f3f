"""The factor of each operation on ‖δ‖², from its own weights and measured values.

An autograd node keeps what its derivative needs: the weight, the mask, the
reciprocal deviation. Every factor below is the mean of the squared derivative
over those values, for a gradient that is independent of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from vgaudit.probe import norms, operations
from vgaudit.probe.deep.scores import mean_square_probability, softmax_factor
from vgaudit.probe.graph import Graph

_KEEPS = frozenset(
    {
        "Add", "Sub", "Neg", "Expand", "Repeat", "Index", "IndexSelect", "Gather",
        "MaskedFill", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "MaxPool1D",
        "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Amax", "UpsampleNearest2D",
        "ConstantPadNd", "MaxUnpool2D", "Flip", "Tril", "Where", "Contiguous",
        "Rsub",
    }
)  # fmt: skip
"""Operations that hand each value on to one place, or add up what they handed on.

Where gradients of several copies meet, they are independent: ‖Σδ‖² = Σ‖δ‖².
"""
_SIDES = {
    "Mm": ("self", "mat2"),
    "Bmm": ("self", "mat2"),
    "Addmm": ("mat1", "mat2"),
    "Baddbmm": ("batch1", "batch2"),
    "Linear": ("input", "weight"),
}
"""Under which names a matrix product keeps its two factors."""


def numel(node: Node, number: int = 0) -> int:
    """Returns how many values the output of a forward operation has."""
    return math.prod(shape(node, number))


def shape(node: Node, number: int = 0) -> tuple[int, ...]:
    """Returns the shape of the output of a forward operation."""
    metadata: Any = node._input_metadata
    return tuple(int(size) for size in metadata[number].shape)


class Measured:
    """Factors read from the saved tensors of a graph that is alive.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._memo: dict[tuple[int, int], float | None] = {}

    def __call__(self, place: int, position: int) -> float | None:
        """Returns the factor along an edge; None for an operation without theory."""
        key = (place, position)
        if key not in self._memo:
            try:
                with torch.no_grad(), torch._C.DisableTorchFunction():
                    self._memo[key] = self._factor(place, position)
            except (RuntimeError, AttributeError, TypeError):
                # Written over in place, or freed: the value is not to be had.
                self._memo[key] = None
        return self._memo[key]

    def _factor(self, place: int, position: int) -> float | None:
        node, kind = self._graph.nodes[place], self._graph.kinds[place]
        if operations.is_reshape(kind) or kind in _KEEPS:
            return 1.0
        found = _BY_KIND.get(kind)
        if found is not None:
            return found(node, position)
        if kind in _SIDES:
            return _product(node, kind, position)
        if operations.is_attention(kind):
            return _attention(node, kind, position)
        return None


def _square(value: Any) -> float:
    """Returns the mean square of a tensor, without underflow."""
    (size,) = norms.read([norms.norm(torch.as_tensor(value))])
    return size * size / max(torch.as_tensor(value).numel(), 1)


def _product(node: Any, kind: str, position: int) -> float:
    """A matrix product over k terms: k times the mean square of the other matrix."""
    place = position - (kind in ("Addmm", "Baddbmm"))
    if place < 0:
        return 1.0
    other: Tensor = getattr(node, f"_saved_{_SIDES[kind][1 - place]}")
    terms = other.shape[-2 if place == 0 and kind != "Linear" else -1]
    return _square(other) * terms * _scale(node, kind)


def _scale(node: Any, kind: str) -> float:
    return float(node._saved_alpha) ** 2 if kind in ("Addmm", "Baddbmm") else 1.0


def _times(node: Any, position: int) -> float | None:
    other = node._saved_other if position == 0 else node._saved_self
    return None if other is None else _square(other)


def _divided(node: Any, position: int) -> float | None:
    if position != 0:
        return None
    return float((1 / node._saved_other.detach().double()).square().mean())


def _convolution(node: Any, position: int) -> float | None:
    if position != 0:
        return None
    weight: Tensor = node._saved_weight
    source: Tensor = node._saved_input
    out = shape(node)
    share = 1.0
    for dim in range(weight.dim() - 2):
        small, large = out[2 + dim], source.shape[2 + dim]
        if node._saved_transposed:
            small, large = large, small
        pairs = meeting(
            small,
            large,
            weight.shape[2 + dim],
            (
                node._saved_stride[dim],
                node._saved_padding[dim],
                node._saved_dilation[dim],
            ),
        )
        share *= pairs / (out[2 + dim] * weight.shape[2 + dim])
    return _square(weight) * weight.numel() / out[1] * share


def meeting(small: int, large: int, taps: int, how: tuple[int, int, int]) -> int:
    """Returns how many (position, tap) pairs of a convolution meet no padding.

    Args:
        small: positions on the side with the stride.
        large: positions on the other side.
        taps: of the kernel.
        how: stride, padding, dilation.
    """
    stride, padding, dilation = (int(value) for value in how)
    places = torch.arange(small)[:, None] * stride - padding
    hits = places + torch.arange(taps)[None] * dilation
    return int(((hits >= 0) & (hits < large)).sum())


def _average_pool(node: Any, position: int) -> float:
    """Each of n values gets δ/n: ‖δ‖² falls by n."""
    source = node._saved_self
    windows = node._saved_kernel_size
    sizes = windows if len(windows) > 1 else [windows[0]] * (source.dim() - 2)
    return 1.0 / math.prod(int(size) for size in sizes)


def _ratio(node: Any, position: int) -> float:
    """A mean over n values: δ/n at each, n times; an adaptive pool may copy instead."""
    child, number = node.next_functions[0]
    return min(numel(node) / numel(child, number), 1.0)


def _summed(node: Any, position: int) -> float:
    return 1 / _ratio(node, position)


def _joined(node: Any, position: int) -> float:
    """Concatenation: each part gets its own share of δ."""
    child, number = node.next_functions[position]
    return numel(child, number) / numel(node)


def _batch_norm(node: Any, position: int) -> float | None:
    source: Tensor = node._saved_input
    channels = source.shape[1]
    trained = getattr(node, "_saved_training", True)
    if trained:
        inverse = node._saved_result2.detach().double()
        kept = 1 - 2 * channels / source.numel()
    else:
        inverse = (node._saved_running_var.double() + node._saved_eps).rsqrt()
        kept = 1.0
    weight = node._saved_weight
    gain = 1.0 if weight is None else weight.detach().double()
    return float((gain * inverse).square().mean()) * kept


def _layer_norm(node: Any, position: int) -> float | None:
    inverse: Tensor = node._saved_result2.detach().double()
    weight = node._saved_weight
    gain = 1.0 if weight is None else _square(weight)
    size = float(node._saved_input.numel()) / inverse.numel()
    return gain * float(inverse.square().mean()) * (1 - 2 / size)


def _attention(node: Any, kind: str, position: int) -> float | None:
    if kind in ("Softmax", "SafeSoftmax"):
        return softmax_factor(node._saved_result.detach())
    # The values (position 2) carry the stream; queries and keys get δ through the
    # softmax, a small part that depends on how alike the values are.
    return mean_square_probability(node) if position == 2 else 0.0


_BY_KIND: dict[str, Callable[[Any, int], float | None]] = {
    "Mul": _times,
    "Div": _divided,
    "Convolution": _convolution,
    "AvgPool2D": _average_pool,
    "AvgPool3D": _average_pool,
    "AdaptiveAvgPool2D": _ratio,
    "AdaptiveAvgPool3D": _ratio,
    "Mean": _ratio,
    "Sum": _summed,
    "Cat": _joined,
    "Stack": _joined,
    "NativeBatchNorm": _batch_norm,
    "CudnnBatchNorm": _batch_norm,
    "NativeLayerNorm": _layer_norm,
    "NativeGroupNorm": _layer_norm,
}
