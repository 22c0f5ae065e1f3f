"""The signal at each tensor of a network, by mean-field theory, from weights alone.

It is described by its mean and variance over units. A weight layer multiplies the
mean square by ‖W‖² per output, an activation is integrated over a Gaussian, a norm
sets mean and variance (Poole et al. 2016, Schoenholz et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vgaudit.probe import norms, operations
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.deep import gauss
from vgaudit.probe.deep.factors import shape
from vgaudit.probe.graph import Graph

_POOLS = frozenset(
    {
        "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D",
        "AvgPool2D", "AdaptiveAvgPool2D", "Mean", "AvgPool3D", "AdaptiveAvgPool3D",
    }
)  # fmt: skip
_NORMS = frozenset(
    {"NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm", "NativeGroupNorm"}
)


@dataclass(frozen=True, slots=True)
class Signal:
    """The values of a tensor: over all units and samples, and of one unit.

    Attributes:
        mean: over all.
        var: over all.
        within: variance of one unit over samples and places: what a norm over the
            batch divides by. The rest of ``var`` are offsets from unit to unit.
    """

    mean: float
    var: float
    within: float

    @property
    def square(self) -> float:
        """The mean square."""
        return self.mean * self.mean + self.var


INPUT = Signal(0.0, 1.0, 1.0)
"""What enters the network: normalised data."""


class Signals:
    """The signals of a graph, from the inputs to the outputs.

    Args:
        graph: the graph, of real or of fake tensors.
        blueprint: its names.
        weights: the parameters by name.
        kinds: key of an activation call → canonical name of the activation.

    Attributes:
        at: node → signal at its output; None where the theory does not reach.
        activations: node of an activation's output → (node of its input, name).
    """

    def __init__(
        self,
        graph: Graph,
        blueprint: Blueprint,
        weights: Mapping[str, Tensor],
        kinds: Mapping[str, str],
    ) -> None:
        self._graph, self._plan, self._weights = graph, blueprint.plan, weights
        self._names = _plain_names(graph, blueprint, weights)
        self.activations = activations(blueprint, kinds)
        self._gains: dict[int, float | None] = {}
        self.at: dict[int, Signal | None] = {}
        for node in reversed(self._plan.dag.order):
            self.at[node] = self._signal(node)

    # ------------------------------------------------------------- forward

    def _signal(self, node: int) -> Signal | None:
        """Returns the signal at the output of a node; None where unknown."""
        jump = self.activations.get(node)
        if jump is not None and jump[0] in self.at:
            return _activated(jump[1], self.at[jump[0]])
        kind = self._graph.kinds[node]
        if node in self._plan.weights:
            return self._weighted(node)
        if kind in _NORMS:
            return self._normed(node)
        given = self.given(node)
        if not given or any(signal is None for signal in given):
            return None
        known = [signal for signal in given if signal is not None]
        if operations.is_reshape(kind) or kind in _POOLS or kind in ("Expand", "Index"):
            return known[0]
        if kind in ("Add", "Sub"):
            sign = -1.0 if kind == "Sub" else 1.0
            mean = known[0].mean + sign * sum(s.mean for s in known[1:])
            return Signal(mean, sum(s.var for s in known), sum(s.within for s in known))
        if kind in ("Cat", "Stack"):
            mean = sum(s.mean for s in known) / len(known)
            square = sum(s.square for s in known) / len(known)
            within = sum(s.within for s in known) / len(known)
            return Signal(mean, max(square - mean * mean, 0.0), within)
        return None

    def given(self, node: int) -> list[Signal | None]:
        """Returns the signals that enter a node from the data side."""
        plan = self._plan
        children = plan.dag.edges[node]
        if not children:
            return [INPUT] if node in plan.dag.sources else []
        return [self.at.get(child) for child in children]

    def _weighted(self, node: int) -> Signal | None:
        given = self.given(node) or [INPUT]
        if node in self._plan.dag.sources:
            given = [INPUT]
        gain = self.gain(node)
        if gain is None or len(given) != 1 or given[0] is None:
            return None
        total = gain * given[0].square + self._bias(node)
        return Signal(0.0, total, gain * given[0].within)

    def _normed(self, node: int) -> Signal:
        return Signal(0.0, self.scale(node) + self._bias(node), self.scale(node))

    def _bias(self, node: int) -> float:
        found = [n for n in self._names.get(node, ()) if _is_bias(n)]
        return sum(square(self._weights[name]) for name in found)

    def scale(self, node: int) -> float:
        """Returns the mean square of a norm's own weights; 1 without any."""
        found = [n for n in self._names.get(node, ()) if not _is_bias(n)]
        return square(self._weights[found[0]]) if found else 1.0

    # -------------------------------------------------------------- weights

    def weight(self, node: int) -> Tensor | None:
        """Returns the weight that a node multiplies by, where it is a parameter."""
        names = self._names.get(node, ())
        found = [self._weights[n] for n in names if self._weights[n].dim() >= 2]
        return found[0] if len(found) == 1 else None

    def gain(self, node: int) -> float | None:
        """Returns ‖W‖² per output unit: the factor on the variance of the signal."""
        if node not in self._gains:
            self._gains[node] = self._gain(node)
        return self._gains[node]

    def _gain(self, node: int) -> float | None:
        weight = self.weight(node)
        kind = self._graph.kinds[node]
        if weight is None or kind not in ("Addmm", "Mm", "Linear", "Convolution"):
            return None
        outputs = _outputs(self._graph, node, kind)
        return square(weight) * weight.numel() / outputs


def activations(
    blueprint: Blueprint, kinds: Mapping[str, str]
) -> dict[int, tuple[int, str]]:
    """Returns node of an activation's output → (node of its input, its name)."""
    return {
        row.node: (row.entry, kinds.get(row.activation, ""))
        for row in blueprint.rows
        if row.activation and row.node is not None and row.entry is not None
    }


def square(tensor: Tensor) -> float:
    """Returns the mean square of a tensor, without underflow."""
    (size,) = norms.read([norms.norm(tensor)])
    return size * size / max(tensor.numel(), 1)


def _activated(name: str, given: Signal | None) -> Signal | None:
    if given is None or not gauss.known(name):
        return None
    found = gauss.integrals(name, given.mean, given.var)
    var = max(found.square - found.mean**2, 0.0)
    share = given.within / given.var if given.var > 0 else 1.0
    return Signal(found.mean, var, var * share)


def _outputs(graph: Graph, node: int, kind: str) -> int:
    out = shape(graph.nodes[node])
    return out[1] if kind == "Convolution" else out[-1]


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].startswith("bias")


def _plain_names(
    graph: Graph, blueprint: Blueprint, weights: Mapping[str, Tensor]
) -> dict[int, tuple[str, ...]]:
    """Returns the parameters that a node uses as they are, only reshaped.

    A weight that is made of others (weight norm) has other values than they.
    """
    found = {}
    for node, names in blueprint.plan.parametric.items():
        waiting = [c for c in graph.edges[node] if c not in blueprint.plan.depth]
        plain = True
        while waiting and plain:
            place = waiting.pop()
            plain = place in graph.leaves or operations.is_reshape(graph.kinds[place])
            waiting.extend(graph.edges[place])
        if plain:
            found[node] = tuple(name for name in names if name in weights)
    return found
