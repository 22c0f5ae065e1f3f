"""Which steps of a training are measured, and what becomes of the verdicts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vgaudit.api import watch
from vgaudit.api.arguments import check_interval
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.findings import LEVELS, FailOn, Optimizer, Report, Status
from vgaudit.integrations.scalars import judged
from vgaudit.judge import Policy
from vgaudit.outcome import Watched
from vgaudit.probe.watch import Scaler
from vgaudit.reports import REPORTS

_FORMATS = {
    ".html": "html",
    ".json": "json",
    ".md": "markdown",
    ".txt": "text",
    ".csv": "csv",
}
_ADAPTIVE = ("adam", "adagrad", "adadelta", "adafactor", "rmsprop", "rprop", "lion")


class UnhealthyGradient(RuntimeError):
    """A training was stopped: what was measured fails ``fail_on``.

    Attributes:
        report: the verdict with its findings.
    """

    def __init__(self, step: int, report: Report) -> None:
        said = [
            f"{finding.code} {finding.name} at {finding.layer or 'the model'}: "
            f"{finding.message}"
            for finding in report.findings
            if report.fails(finding)
        ]
        super().__init__("\n".join([f"gradient not healthy at step {step}", *said]))
        self.report = report


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured step: its verdict, and its figures by name."""

    step: int
    status: Status
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a callback is asked for.

    Attributes:
        every: measure every n-th optimizer step.
        policy: how to judge; without it by the defaults, for the kind of optimizer
            that trains.
        fail_on: stop the training at a finding of this level.
        report: a file to write the last verdict to: .html, .json, .md, .txt or .csv.

    Raises:
        BadConfig: one of them does not fit.
    """

    every: int = 100
    policy: Policy | None = None
    fail_on: FailOn | None = None
    report: Path | None = None

    def __post_init__(self) -> None:
        check_interval(self.every)
        if self.fail_on not in (None, "never", *LEVELS):
            raise BadConfig(
                f"fail_on is {self.fail_on!r}",
                hint=f"it is one of {', '.join(LEVELS)}, never, or None",
            )
        if self.report is not None and self.report.suffix not in _FORMATS:
            raise BadConfig(
                f"no format for a report called {self.report.name}",
                hint=f"its name ends in one of {', '.join(_FORMATS)}",
            )
        if self.policy is not None:
            self.policy.check()

    def judging(self, optimizer: object) -> Policy:
        """Returns the policy under what trains the model."""
        chosen = self.policy or Policy(optimizer=kind_of(optimizer))
        return replace(chosen, fail_on=self.fail_on) if self.fail_on else chosen


class Steps:
    """The measured steps of one training.

    Attributes:
        history: one point for each measured step.
        report: the last verdict; None before the first.
    """

    def __init__(self, plan: Plan) -> None:
        self.history: list[Point] = []
        self.report: Report | None = None
        self._plan = plan
        self._probe: Watched | None = None
        self._again = False
        self._why: NothingMeasured | None = None

    def open(self, model: nn.Module, step: int, scaler: Scaler | None = None) -> None:
        """Begins to measure if it is time to, at the first batch of a step.

        A step of which nothing came, because its gradient overflowed, is made up for
        by the next one.
        """
        due = self._again or step % self._plan.every == 0
        if self._probe is None and due:
            self._probe = watch(model, scaler=scaler)
            self._probe.__enter__()

    def close(self, step: int, optimizer: object = None) -> dict[str, float]:
        """Ends the measurement, and returns its figures by name; none if none ran."""
        probe, self._probe = self._probe, None
        if probe is None:
            return {}
        probe.__exit__(None, None, None)
        try:
            self.report = probe.report(self._plan.judging(optimizer))
        except NothingMeasured as error:
            self._again, self._why = True, error
            return {}
        self._again = False
        point = Point(step=step, status=self.report.status, figures=judged(self.report))
        self.history.append(point)
        return point.figures

    def check(self) -> None:
        """Stops the training where the last verdict fails ``fail_on``.

        Raises:
            UnhealthyGradient: it does.
        """
        if self._plan.fail_on and self.report and self.report.status == "fail":
            self._write()
            raise UnhealthyGradient(self.history[-1].step, self.report)

    def abandon(self) -> None:
        """Removes every hook, whatever happened."""
        if self._probe is not None:
            self._probe.__exit__(None, None, None)
            self._probe = None

    def finish(self) -> None:
        """Ends the training: writes the report.

        Raises:
            NothingMeasured: ``fail_on`` was given, and no step could be measured.
        """
        self.abandon()
        self._write()
        if self.history or self._why is None:
            return
        if self._plan.fail_on:
            raise self._why
        warnings.warn(f"vgaudit: {self._why.message}; {self._why.hint}", stacklevel=2)

    def _write(self) -> None:
        path = self._plan.report
        if path is not None and self.report is not None:
            text = REPORTS[_FORMATS[path.suffix]](self.report)
            path.write_text(text, encoding="utf-8")


class Audited:
    """What the callbacks of every trainer have: a plan, its steps, the last verdict.

    A callback names this first, and the class of its trainer's callbacks after it.

    Args:
        every: measure every n-th optimizer step.
        policy: how to judge; without it by the defaults, for the optimizer that trains.
        fail_on: stop the training at a finding of this level.
        report: a file for the last verdict: .html, .json, .md, .txt or .csv.

    Raises:
        BadConfig: an argument does not fit.
    """

    def __init__(
        self,
        *,
        every: int,
        policy: Policy | None,
        fail_on: FailOn | None,
        report: str | Path | None,
    ) -> None:
        super().__init__()
        path = Path(report) if report is not None else None
        self._plan = Plan(every=every, policy=policy, fail_on=fail_on, report=path)
        self._steps = Steps(self._plan)

    @property
    def history(self) -> list[Point]:
        """One point for each measured step."""
        return self._steps.history

    @property
    def report(self) -> Report | None:
        """The last verdict; None before the first."""
        return self._steps.report

    def _begin(self, *, chief: bool) -> None:
        """Begins a new history; of several processes, the chief alone writes."""
        self._steps.abandon()
        self._steps = Steps(self._plan if chief else replace(self._plan, report=None))


def kind_of(optimizer: object) -> Optimizer:
    """Tells whether an optimizer divides its step by the size of the gradient."""
    inner = getattr(optimizer, "optimizer", optimizer)
    adaptive = (torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop)
    named = type(inner).__name__.lower()
    if isinstance(inner, adaptive) or any(word in named for word in _ADAPTIVE):
        return "adam"
    return "sgd"
