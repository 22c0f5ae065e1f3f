"""VG108: the gradient is lost on its way back through time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, RecurrenceFlow
from vgaudit.plain import visible
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.through_time import Reading, reader, readings
from vgaudit.rules.wording import count, decades, number, percent, span

_WAYS_OUT = {
    "lstm": "a forget-gate bias of 1 or more, so that the cell keeps its content",
    "gru": "an update-gate bias above 0, so that the state is kept",
}
_GATED = frozenset({"lstm", "gru", "gated-cell"})
_PLAIN = "an orthogonal recurrent weight, or a gated cell (LSTM, GRU)"


@dataclass(frozen=True, slots=True)
class VanishingThroughTime(Rule):
    """What stood at the beginning of a sequence sends no gradient to its end.

    What it measures:
        log₁₀(‖∂s/∂h_{T−k}‖ / ‖∂s/∂h_T‖) at the longest lag k, where h are the hidden
        states of a recurrent layer and s is a random projection of the last one, over
        groups of samples. Fused kernels are run again step by step from their weights;
        a cell that is called in a loop is followed in the autograd graph. Of several
        layers and directions, the one that carries most counts; with the last states of
        both directions, half the sequence.

    Why it matters:
        Where the output reads the last state alone, an early input has no other way to
        the loss than through time. Its part of every weight's gradient is smaller by
        that factor than the part of the last inputs, and no optimizer can tell it from
        their noise: they share the weight.

    False alarms:
        Where the output reads every state, early inputs are near to some part of the
        loss and the rule is quiet; the report gives the memory horizon. A task whose
        answer lies in the last steps needs no more, and what a task needs no scan
        knows: an LSTM that reads MNIST row by row, 28 steps, gets an error and learns
        all the same; such a project ignores the rule. Plain tanh and ReLU cells grow
        their recurrent weight under a large learning rate and mostly recover, so they
        get a warning where gated cells and sigmoids get an error; and no more than
        that where each step loses so much that their weights are simply small, for
        such are made anew in a few dozen steps. A sigmoid that multiplies the state
        is a gate; one whose output is the next state makes a plain cell, with limits
        of its own.

    Treatments:
        LSTM: a positive forget-gate bias. GRU: a positive update-gate bias. Plain
        cells: an orthogonal or identity recurrent weight, or a gated cell. Any: a loss
        or an attention over all states, shorter sequences, a skip over time.

    References:
        Hochreiter 1991; Bengio, Simard and Frasconi 1994, “Learning long-term
        dependencies with gradient descent is difficult”; Pascanu, Mikolov and Bengio
        2013; Jozefowicz, Zaremba and Sutskever 2015 (forget-gate bias); Tallec and
        Ollivier 2018, “Can recurrent neural networks warp time?”.
    """

    gated_sgd_error: float = threshold(
        -2.96, "decades; below it an error under SGD for gated cells"
    )
    gated_adam_error: float = threshold(
        -5.25, "decades; below it an error under Adam for gated cells"
    )
    sigmoid_sgd_error: float = threshold(
        -3.9, "decades; below it an error under SGD for plain sigmoid cells"
    )
    sigmoid_adam_error: float = threshold(
        -3.0, "decades; below it an error under Adam for plain sigmoid cells"
    )
    plain_warning: float = threshold(
        -5.0, "decades; below it a warning for plain cells"
    )
    plain_sgd_error: float = threshold(
        -16.0, "decades; below it an error under SGD for plain cells"
    )
    plain_adam_error: float = threshold(
        -7.0, "decades; below it an error under Adam for plain cells"
    )
    small_step: float = threshold(
        -0.7, "decades a step; below it a plain cell's weights are small: a warning"
    )

    code: ClassVar[str] = "VG108"
    name: ClassVar[str] = "vanishing-through-time"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("an LSTM over 40 steps", reader(-0.25), "error"),
        Example(
            "the same under Adam", reader(-0.6), "error", training=Training("adam")
        ),
        Example(
            "a sigmoid cell over six steps",
            reader(-1.1, 7, kind="sigmoid-cell"),
            "error",
        ),
        Example("a plain cell may recover", reader(-0.3, kind="rnn-tanh"), "warning"),
        Example(
            "a plain cell over hundreds of steps",
            reader(-0.3, 200, kind="rnn-tanh"),
            "error",
        ),
        Example(
            "small weights of a plain cell are made anew",
            reader(-1.2, kind="rnn-tanh"),
            "warning",
            training=Training("adam"),
        ),
        Example(
            "an interval across the limit is unclear",
            reader(-0.25, 14, spread=0.6),
            "info",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("eight steps", reader(-0.25, 8)),
        Example("a gate that keeps its content", reader(-0.02, 100)),
        Example("every state is read", reader(-0.25, last_only=False)),
        Example("not known what is read", reader(-0.25, last_only=None)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each recurrent module."""
        for reading in readings(audit.flow):
            if reading.last_only:
                yield from self._judged(reading, training)

    def _judged(self, reading: Reading, training: Training) -> Iterator[Finding]:
        limits, lost = self._limits(reading, training), reading.carried
        for level, limit in limits:
            if lost.hi < limit:
                yield self._finding(reading, level, limit, training)
                return
        limit = max(limit for _, limit in limits)
        if lost.lo < limit:
            yield self._finding(reading, "info", limit, training)

    def _limits(
        self, reading: Reading, training: Training
    ) -> tuple[tuple[Level, float], ...]:
        """Returns the limits of a kind of layer, the strictest level first."""
        sgd, kind = training.optimizer == "sgd", reading.best.kind
        if kind in _GATED:
            gated = self.gated_sgd_error if sgd else self.gated_adam_error
            return (("error", gated),)
        if kind == "sigmoid-cell":
            sigmoid = self.sigmoid_sgd_error if sgd else self.sigmoid_adam_error
            return (("error", sigmoid),)
        warning: tuple[Level, float] = ("warning", self.plain_warning)
        if reading.carried.value < self.small_step * reading.lag:
            return (warning,)
        return (
            "error",
            self.plain_sgd_error if sgd else self.plain_adam_error,
        ), warning

    def _finding(
        self, reading: Reading, level: Level, limit: float, training: Training
    ) -> Finding:
        best, lost = reading.best, reading.carried
        where, steps = visible(reading.module), count(reading.lag, "step")
        how_much = f"{decades(-lost.value)} decades are lost"
        if not math.isfinite(lost.value):
            how_much = "all of the gradient is lost"
        text = (
            f"{how_much} in {steps} through {where} (limit {number(-limit)} under "
            f"{training.optimizer}), and its last state alone is read"
        )
        if level == "info":
            text = (
                f"unclear: {span(lost)} decades over {steps} through {where} reach "
                f"across the limit of {number(limit)} under {training.optimizer}"
            )
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=reading.module,
            layers=(reading.module,),
            message=text,
            value=lost.value,
            limit=limit,
            unit="decades",
            unclear=level == "info",
            evidence=tuple(_evidence(reading)),
            fix=self.advice(_WAYS_OUT.get(best.kind, _PLAIN), _each(best)),
        )


def _each(best: RecurrenceFlow) -> str:
    """Returns how much a step passes, and how open its gate for memory stands."""
    passes = f"a step passes {percent(10**best.rate.value)} of the gradient on"
    for gate in best.gates:
        if gate.name in {"forget", "update"}:
            return f"{passes}, its {gate.name} gate open by {percent(gate.mean)}"
    return passes


def _evidence(reading: Reading) -> Iterator[str]:
    best = reading.best
    if best.horizon is not None:
        far = f"{count(best.horizon, 'step')} of {best.steps}"
        left = "after which less than 1 % is left"
        yield f"memory horizon: {far}, {left}; an answer within them needs no more"
    shut = [gate for gate in best.gates if gate.saturated > 0.5]
    for gate in shut:
        yield (
            f"{percent(gate.saturated)} of the {gate.name} gate is saturated: low rail "
            f"{percent(gate.saturated_low)}, high rail {percent(gate.saturated_high)}"
        )
