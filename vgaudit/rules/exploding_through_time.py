"""VG204: the gradient grows on its way back through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, Interval, RecurrenceFlow
from vgaudit.plain import visible
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.through_time import reader
from vgaudit.rules.wording import count, decades, number, span


@dataclass(frozen=True, slots=True)
class ExplodingThroughTime(Rule):
    """The gradient multiplies from step to step on its way back through time.

    What it measures:
        The same gradient against the lag as VG108, in the other direction: the largest
        log₁₀(‖∂s/∂h_{T−k}‖ / ‖∂s/∂h_T‖) over the lags k, in decades.

    Why it matters:
        The gradient of the recurrent weight is a sum over all steps, and the most
        distant ones rule it: one step of SGD of any useful size throws the weights
        away. A small change of the first state changes everything after it. Adam's
        steps have a fixed size and bear more, except over long sequences: a relative
        change r of the weight changes the last state by (1 + r)ᵏ after k steps.

    False alarms:
        Clipping of the gradient's norm in the training loop, of which the scan does
        not know, makes such nets trainable.

    Treatments:
        A recurrent weight with a spectral radius of 1 or less (orthogonal), a bounded
        activation, clipping of the gradient's norm, shorter sequences.

    References:
        Pascanu, Mikolov and Bengio 2013, “On the difficulty of training recurrent
        neural networks”; Le, Jaitly and Hinton 2015, “A simple way to initialize
        recurrent networks of rectified linear units”.
    """

    warning: float = threshold(1.2, "decades; at or above it a warning")
    error: float = threshold(1.4, "decades; at or above it an error under SGD")
    adam_error: float = threshold(11.5, "decades; at or above it an error under Adam")
    adam_long_error: float = threshold(
        2.8, "decades; the same over many steps, where small changes compound"
    )
    long: int = threshold(20, "steps from which a sequence has many")

    code: ClassVar[str] = "VG204"
    name: ClassVar[str] = "exploding-through-time"
    implied_by: ClassVar[tuple[str, ...]] = ("VG107",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a fifth of a decade a step", reader(0.2, kind="rnn-relu"), "error"),
        Example(
            "the same where every state is read",
            reader(0.2, kind="rnn-relu", last_only=False),
            "error",
        ),
        Example(
            "the same under Adam",
            reader(0.2, kind="rnn-relu"),
            "error",
            training=Training("adam"),
        ),
        Example(
            "five decades in a few steps under Adam",
            reader(0.8, 8, kind="rnn-relu"),
            "warning",
            training=Training("adam"),
        ),
        Example(
            "an interval across the limit is unclear",
            reader(0.1, 14, spread=0.3),
            "info",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a layer that forgets", reader(-0.25)),
        Example("a few steps", reader(0.1, 8)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each layer and direction that grows."""
        for flow in audit.flow.recurrences:
            grown = max(flow.decades, key=lambda interval: interval.value)
            verdict = self._verdict(grown, self._error(flow, training))
            if verdict is not None:
                yield self._finding(flow, grown, *verdict)

    def _error(self, flow: RecurrenceFlow, training: Training) -> float:
        if training.optimizer == "sgd":
            return self.error
        return self.adam_long_error if flow.steps >= self.long else self.adam_error

    def _verdict(self, grown: Interval, error: float) -> tuple[Level, float] | None:
        if grown.lo >= error:
            return "error", error
        if grown.lo >= self.warning:
            return "warning", self.warning
        return ("info", self.warning) if grown.hi >= self.warning else None

    def _finding(
        self, flow: RecurrenceFlow, grown: Interval, level: Level, limit: float
    ) -> Finding:
        way = f"over {count(flow.steps, 'step')} through {visible(flow.layer)}"
        text = f"the gradient grows by {decades(grown.value)} decades {way}"
        text = f"{text} (limit {number(limit)})"
        if level == "info":
            text = (
                f"unclear: {span(grown)} decades {way} reach across the limit of "
                f"{number(limit)}"
            )
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=flow.layer,
            layers=(flow.layer,),
            message=text,
            value=grown.value,
            limit=limit,
            unit="decades",
            unclear=level == "info",
            fix=self.advice(
                "an orthogonal recurrent weight, and clipping of the gradient",
                f"each step multiplies it by {number(10**flow.rate.value)}",
            ),
        )
