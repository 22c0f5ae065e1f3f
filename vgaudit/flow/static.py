"""What weights and graph alone say about the gradient, without running the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticLayer:
    """One weight layer in a stretch of the trunk without norm or skip.

    Attributes:
        layer: its path.
        activation: what feeds it, between it and the layer below; ``linear`` if
            nothing does, and for the lowest layer.
        gain: its weights' factor on the variance of the signal: ‖W‖² per output.
        critical: the gain at which ‖δ‖ keeps its size through that activation, for
            the signal that arrives there; NaN where no gain does.
        decades: predicted decades of ‖δ‖ from its output to that of the layer below;
            0 for the lowest.
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
        saturating: how many are fed by an activation with two rails.
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
        judged: weight layers of which something can be said: they lie in a stretch
            that the theory covers, or beside a norm or a skip.
        predicted: decades over the whole trunk by the data-free theory; None where
            it does not reach from the output to the first layer.
        seconds: what following the graph and reading the weights took.
    """

    weight_layers: int
    stretches: tuple[PlainStretch, ...]
    judged: int
    predicted: float | None
    seconds: float
