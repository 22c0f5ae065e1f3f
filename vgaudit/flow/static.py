"""What weights and graph alone say about the gradient, without running the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticLayer:
    """One weight layer in a stretch of the trunk without norm or skip.

    Attributes:
        layer: its path.
        activation: what stands between it and the next layer towards the output;
            ``linear`` if nothing.
        gain: its weights' factor on the variance of the signal: ‖W‖² per output.
        critical: the gain at which the signal keeps its size through that
            activation, at the size that it has there; NaN where no gain does.
        decades: predicted decades of ‖δ‖ across the layer with its activation.
    """

    layer: str
    activation: str
    gain: float
    critical: float
    decades: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainStretch:
    """A run of weight layers with neither norm nor skip between them.

    Attributes:
        layers: nearest the input first.
        saturating: how many are followed by an activation with two rails.
        decades: predicted decades of ‖δ‖ from the last layer to the first.
    """

    layers: tuple[StaticLayer, ...]
    saturating: int
    decades: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFlow:
    """A model judged by its weights and graph alone.

    Attributes:
        weight_layers: on the longest path.
        stretches: runs of two or more weight layers without norm or skip.
        covered: weight layers that lie in one of them.
        predicted: decades over the whole trunk by the data-free theory; None where
            it does not reach from the output to the first layer.
        seconds: what following the graph and reading the weights took.
    """

    weight_layers: int
    stretches: tuple[PlainStretch, ...]
    covered: int
    predicted: float | None
    seconds: float
