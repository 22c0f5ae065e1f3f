"""The gradient against the lag, for nets that read a sequence step by step."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.flow.figures import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrenceFlow:
    """How far back in time one recurrent layer carries the gradient.

    Attributes:
        layer: path of the layer (one direction of one layer of a fused kernel
            each), or of the module whose cell is called step by step.
        kind: ``rnn-tanh``, ``rnn-relu``, ``lstm``, ``gru`` or ``cell``.
        steps: length of the sequence.
        lags: steps back in time at which the figures below stand, from 0.
        decades: decades of ‖∂s/∂h_{T-lag}‖ over ‖∂s/∂h_T‖ at each lag, where s is
            a random projection of the last hidden state.
        rate: decades per step, fitted over the lags above the floor of the numbers.
        horizon: steps after which less than 1 % of the gradient is left; None where
            that lies beyond the sequence.
    """

    layer: str
    kind: str
    steps: int
    lags: tuple[int, ...]
    decades: tuple[Interval, ...]
    rate: Interval
    horizon: int | None
