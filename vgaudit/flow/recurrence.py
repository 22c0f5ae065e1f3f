"""The gradient against the lag, for nets that read a sequence step by step."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.flow.figures import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFlow:
    """One gate of a recurrent layer, over all samples and steps.

    Attributes:
        name: ``input``, ``forget``, ``cell``, ``output`` of an LSTM; ``reset``,
            ``update``, ``new`` of a GRU; ``state`` of a plain recurrent layer.
        kind: its activation: ``sigmoid``, ``tanh`` or ``relu``.
        mean: mean of its values.
        saturated_low, saturated_high: share of values on either rail, where
            |φ′(z)| < 0.05·max|φ′|; of a ReLU, the share that is off stands under low.
    """

    name: str
    kind: str
    mean: float
    saturated_low: float
    saturated_high: float

    @property
    def saturated(self) -> float:
        """Share of values on either rail."""
        return self.saturated_low + self.saturated_high


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrenceFlow:
    """How far back in time one recurrent layer carries the gradient.

    Attributes:
        layer: path of the layer (one direction of one layer of a fused kernel
            each), or of the module whose cell is called step by step.
        kind: ``rnn-tanh``, ``rnn-relu``, ``lstm``, ``gru``; of a loop ``gated-cell``
            where a sigmoid multiplies the state, ``sigmoid-cell`` where it makes the
            next state, or ``cell``.
        steps: length of the sequence.
        lags: steps back in time at which the figures below stand, from 0.
        decades: decades of ‖∂s/∂h_{T-lag}‖ over ‖∂s/∂h_T‖ at each lag, where s is
            a random projection of the last hidden state.
        rate: decades per step, fitted over the lags above the floor of the numbers.
        horizon: steps after which less than 1 % of the gradient is left; None where
            that lies beyond the sequence.
        last_only: the network's output reads the last state alone, so that the
            gradient of an early step has no other way than through time; None where
            it is not known.
        gates: the gates, of fused kernels.
    """

    layer: str
    kind: str
    steps: int
    lags: tuple[int, ...]
    decades: tuple[Interval, ...]
    rate: Interval
    horizon: int | None
    last_only: bool | None = None
    gates: tuple[GateFlow, ...] = ()

    @property
    def longest(self) -> Interval:
        """Decades at the longest lag."""
        return self.decades[-1]
