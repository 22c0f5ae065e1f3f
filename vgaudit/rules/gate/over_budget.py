"""VG902: a figure is beyond the budget that the configuration gives it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Report
from vgaudit.plain import visible
from vgaudit.rules.examples import around, chain, having
from vgaudit.rules.gate.metrics import Metric, Reading, metric
from vgaudit.rules.rule import GateExample, GateRule
from vgaudit.terms import Budget, Terms

_DAY = datetime.date(2026, 1, 1)
_REPORT = Report(status="pass", exit_code=0, command="", audit=chain())


def _limited(name: str, limit: float) -> Terms:
    return Terms(today=_DAY, budgets=(Budget(metric=name, limit=limit),))


@dataclass(frozen=True, slots=True)
class OverBudget(GateRule):
    """A figure of the model is beyond the budget in the configuration.

    What it measures:
        The figures that ``[tool.vgaudit.budgets]`` names: attenuation, growth,
        decades-per-layer, worst-step, branch-decay, recurrence-rate (decades);
        saturated-share, dead-units, precision-lost, output-variation (shares);
        zero-gradient-layers, disconnected-parameters, nonfinite-gradients (counts).
        The limit is the last value that is within the budget. Where the figure has
        an interval, all of it must be beyond the limit; else the finding says
        “unclear”. A budget on attenuation or growth that cannot be read because no
        path was found is broken.

    Why it matters:
        The limits of the rules separate models that train from models that do not.
        A budget holds a model to what it has already reached.

    False alarms:
        A limit near the measured value: leave room for the seed and for hardware.

    Treatments:
        Those of the rule about the same figure, or a wider budget.

    References:
        Performance budgets of web pages are the pattern.
    """

    code: ClassVar[str] = "VG902"
    name: ClassVar[str] = "over-budget"
    FIRES: ClassVar[tuple[GateExample, ...]] = (
        GateExample(
            "attenuation below", _REPORT, _limited("attenuation", -0.5), "error"
        ),
        GateExample(
            "saturation above", _REPORT, _limited("saturated-share", -0.1), "error"
        ),
        GateExample(
            "no path at all",
            Report(
                status="pass",
                exit_code=0,
                command="",
                audit=having(chain(), attenuation=None),
            ),
            _limited("attenuation", -3.0),
            "error",
        ),
        GateExample(
            "an interval on both sides",
            Report(
                status="pass",
                exit_code=0,
                command="",
                audit=having(chain(), attenuation=around(-3.0, spread=0.5)),
            ),
            _limited("attenuation", -2.8),
            "info",
        ),
    )
    QUIET: ClassVar[tuple[GateExample, ...]] = (
        GateExample("within", _REPORT, _limited("attenuation", -2.0)),
        GateExample("at the limit", _REPORT, _limited("attenuation", -0.9)),
        GateExample("no rectifier to die", _REPORT, _limited("dead-units", 0.0)),
        GateExample("no budget", _REPORT, Terms(today=_DAY)),
    )

    def decide(self, report: Report, terms: Terms) -> Iterator[Finding]:
        """Yields one finding for each budget that is not kept."""
        if report.audit is None:
            return
        for budget in terms.budgets:
            figure = metric(budget.metric)
            reading = figure.read(report.audit)
            if reading is not None:
                yield from self._judged(budget, figure, reading)
            elif figure.name in ("attenuation", "growth"):
                yield self._finding(
                    budget, "was not measured, so its budget cannot be checked"
                )

    def _judged(
        self, budget: Budget, figure: Metric, reading: Reading
    ) -> Iterator[Finding]:
        value = reading.figure
        best, worst = (value.hi, value.lo) if figure.higher else (value.lo, value.hi)
        if not figure.worse(worst, budget.limit) > 0:
            return
        clear = figure.worse(best, budget.limit) > 0
        where = f" at {visible(reading.layer)}" if reading.layer else ""
        side = "below" if figure.higher else "above"
        verb = "is" if clear else "may be"
        words = (
            f"{verb} {figure.shown(value.value)}{where}, {side} the budget of "
            f"{figure.shown(budget.limit)}"
        )
        yield self._finding(budget, words, reading=reading, clear=clear)

    def _finding(
        self,
        budget: Budget,
        words: str,
        *,
        reading: Reading | None = None,
        clear: bool = True,
    ) -> Finding:
        layer = reading.layer if reading else ""
        return Finding(
            code=self.code,
            name=self.name,
            level=budget.level if clear else "info",
            layer=layer,
            layers=(layer,) if layer else (),
            message=f"{budget.metric} {words}",
            value=reading.figure.value if reading else None,
            limit=budget.limit,
            unit=metric(budget.metric).unit,
            unclear=not clear,
            fix=self.advice(
                "mend the model, or widen the budget in the configuration",
                _missing(budget, reading),
            ),
            source=reading.source if reading else None,
        )


def _missing(budget: Budget, reading: Reading | None) -> str:
    """Returns how far a figure is from its budget, as the reason."""
    figure = metric(budget.metric)
    if reading is None:
        return f"a budget of {figure.shown(budget.limit)} needs a figure"
    away = abs(reading.figure.value - budget.limit)
    return f"it is {figure.shown(away)} away from what was agreed"
