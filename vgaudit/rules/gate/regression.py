"""VG901: worse than the baseline, by more than the noise."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import LEVELS, Finding, Fix, Report
from vgaudit.flow import Audit, Interval
from vgaudit.plain import visible
from vgaudit.rules.examples import around, chain, having
from vgaudit.rules.gate.known import attenuations, known
from vgaudit.rules.gate.metrics import METRICS, Metric, Reading, readings
from vgaudit.rules.rule import GateExample, GateRule, threshold
from vgaudit.rules.wording import count, decades, names
from vgaudit.terms import Known, Terms

_DAY = datetime.date(2026, 1, 1)
_NEW = Finding(
    code="VG302",
    name="dead-units",
    level="error",
    message="dead",
    layer="layers.1",
    layers=("layers.1",),
)


def _judged(audit: Audit, *findings: Finding) -> Report:
    return Report(
        status="pass", exit_code=0, command="", audit=audit, findings=findings
    )


def _since(audit: Audit) -> Terms:
    return Terms(today=_DAY, known=known(_judged(audit)))


@dataclass(frozen=True, slots=True)
class Regression(GateRule):
    """The model is worse than its baseline, by more than the noise.

    What it measures:
        Findings of the level that fails the gate which the baseline does not know;
        a finding is known where the same rule fired at the same place, or at one
        that overlaps, at the same level or a worse one. And the figures of
        ``vgaudit explain VG902``: worse by more than √(h₁² + h₂²), where h is half
        the 95 % interval of each, and by more than a least change.

    Why it matters:
        A gate on a model with old defects is of use only if it tells the new ones.

    False alarms:
        Other hardware or another version of PyTorch moves figures within the least
        change. Another seed, other data or a longer training are not regressions of
        the code: write the baseline from the run that CI repeats.

    Treatments:
        Undo what changed, or accept it: ``vgaudit baseline write REPORT.json
        --force``.

    References:
        Hunter 2016, “Perf regression detection”, for tests against measured noise.
    """

    decades: float = threshold(0.3, "least change in decades that counts")
    single: float = threshold(
        1.0, "least change in decades where a single batch tells no noise"
    )
    share: float = threshold(0.05, "least change of a share that counts")

    code: ClassVar[str] = "VG901"
    name: ClassVar[str] = "regression"
    FIRES: ClassVar[tuple[GateExample, ...]] = (
        GateExample("a new finding", _judged(chain(), _NEW), _since(chain()), "error"),
        GateExample(
            "three decades more are lost",
            _judged(chain([-3.9, -3, -2, -1, -0.5, 0.0])),
            _since(chain()),
            "error",
        ),
    )
    QUIET: ClassVar[tuple[GateExample, ...]] = (
        GateExample("the same", _judged(chain()), _since(chain())),
        GateExample(
            "within the noise",
            _judged(having(chain(), attenuation=around(-1.9, spread=0.9))),
            _since(having(chain(), attenuation=around(-0.9, spread=0.9))),
        ),
        GateExample(
            "better", _judged(chain()), _since(chain([-3.9, -3, -2, -1, -0.5, 0.0]))
        ),
        GateExample("no baseline", _judged(chain(), _NEW), Terms(today=_DAY)),
        GateExample(
            "a new note",
            _judged(chain(), replace(_NEW, level="info")),
            _since(chain()),
        ),
    )

    def decide(self, report: Report, terms: Terms) -> Iterator[Finding]:
        """Yields one finding for all that is new, and one for each figure."""
        if report.audit is None or terms.known is None:
            return
        new = [f for f in report.findings if f.level != "info" and report.fails(f)]
        if new:
            yield self._new(new)
        before, now = terms.known.metrics, readings(report.audit)
        worse = [
            name
            for name, reading in now.items()
            if name in before
            and self._worse(METRICS[name], reading.figure, before[name])
        ]
        for name in worse:
            if "attenuation" not in worse or name not in _PARTS:
                both = report.audit, terms.known
                yield self._moved(METRICS[name], now[name], before[name], both)

    def _worse(self, figure: Metric, new: Interval, old: Interval) -> bool:
        change = figure.worse(new.value, old.value)
        return change > self.noise(figure, new, old)

    def noise(self, figure: Metric, new: Interval, old: Interval) -> float:
        """Returns the change of a figure that means nothing."""
        measured = math.hypot(_half(new), _half(old))
        if figure.unit == "count":
            return 0.0
        if figure.unit == "share":
            return max(self.share, measured)
        blind = min(new.n, old.n) < 2
        return max(self.single if blind else self.decades, measured)

    def _new(self, findings: Sequence[Finding]) -> Finding:
        level = min((f.level for f in findings), key=LEVELS.index)
        said = [f"{f.code} at {f.layer or 'the model'}" for f in findings]
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            message=f"{count(len(findings), 'new finding')} since the baseline: "
            f"{names(said)}",
            value=float(len(findings)),
            limit=0.0,
            unit="findings",
            fix=replace(
                _FIX, reason=f"the baseline knows none of these {len(findings):,}"
            ),
        )

    def _moved(
        self, figure: Metric, reading: Reading, old: Interval, both: tuple[Audit, Known]
    ) -> Finding:
        new = reading.figure
        noise = self.noise(figure, new, old)
        reading, evidence = _located(figure, reading, both)
        where = f" at {visible(reading.layer)}" if reading.layer else ""
        return Finding(
            code=self.code,
            name=self.name,
            level="error",
            layer=reading.layer,
            layers=(reading.layer,) if reading.layer else (),
            message=f"{figure.name} went from {figure.shown(old.value)} to "
            f"{figure.shown(new.value)}{where} since the baseline, by more than the "
            f"noise of {figure.shown(noise)}",
            value=new.value,
            limit=old.value,
            unit=figure.unit,
            evidence=evidence,
            fix=replace(_FIX, reason=_beyond(figure, new, old, noise)),
            source=reading.source,
        )


_PARTS = frozenset({"decades-per-layer", "worst-step"})
"""Figures that attenuation says already."""

_FIX = Fix(
    command="vgaudit baseline write REPORT.json --force",
    text="undo what changed, or accept it as the new baseline",
)


def _beyond(figure: Metric, new: Interval, old: Interval, noise: float) -> str:
    """Returns by how much a figure moved, against what runs differ by."""
    moved = figure.shown(abs(new.value - old.value))
    return f"it moved by {moved}, where runs differ by {figure.shown(noise)}"


def _half(figure: Interval) -> float:
    width = max(figure.value - figure.lo, figure.hi - figure.value)
    return width if math.isfinite(width) else 0.0


def _located(
    figure: Metric, reading: Reading, both: tuple[Audit, Known]
) -> tuple[Reading, tuple[str, ...]]:
    """Returns a change of the whole trunk with the layer that it comes from."""
    if figure.name != "attenuation":
        return reading, ()
    audit, before = both
    now = attenuations(audit.flow)
    shared = [path for path in now if path in before.layers]
    ahead = [*shared[1:], None]
    moves = [
        (_move(here, now, before.layers) - _move(after, now, before.layers), here)
        for here, after in zip(shared, ahead, strict=True)
    ]
    fresh = [path for path in now if path not in before.layers]
    evidence = [f"not in the baseline: {names(fresh)}"] if fresh else []
    lost = min((x for x in moves if math.isfinite(x[0])), default=(0.0, ""))
    if lost[0] < 0:
        text = f"{decades(lost[0])} decades of it at {visible(lost[1])}"
        evidence.insert(0, text)
        layer = next(x for x in audit.flow.layers if x.path == lost[1])
        reading = Reading(reading.figure, layer.path, layer.source)
    return reading, tuple(evidence)


def _move(path: str | None, now: dict[str, float], before: dict[str, float]) -> float:
    """Returns how much more is lost between a layer and the output than before."""
    return now[path] - before[path] if path is not None else 0.0
