"""Scans several targets at once, each in a worker of its own."""

from __future__ import annotations

import inspect
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from vgaudit.cli import deciding, jobs, process
from vgaudit.cli.boundary import InternalError
from vgaudit.cli.configured import settled, typed
from vgaudit.cli.process import Leash, Limits, WorkerBug
from vgaudit.cli.progress import Phases
from vgaudit.cli.scan import scan
from vgaudit.config import Settings, TargetSettings
from vgaudit.config.trust import code
from vgaudit.errors import BadConfig, VgauditError
from vgaudit.findings import Report
from vgaudit.job import ScanJob
from vgaudit.judge import Policy, failed, judge
from vgaudit.plain import visible
from vgaudit.ranks import launched
from vgaudit.reports.json import parse_audit

CORES_EACH = 2
"""Cores from which one more scan at once is worth it."""

THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class Plan:
    """One scan to come."""

    name: str
    job: ScanJob
    limits: Limits
    policy: Policy


_Done = tuple[Plan, Report, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """How many scans run at once, and what is seen of them."""

    at_once: int
    silent: bool
    quiet: bool

    @classmethod
    def chosen(
        cls, ctx: typer.Context, settings: Settings, plans: Sequence[Plan]
    ) -> Pace:
        """Returns what was asked for, or what the cores allow.

        A GPU is not shared unless asked for: its memory would not do. Ranks share
        each scan, one after the other.
        """
        asked = ctx.params["jobs"] or settings.jobs
        cores = len(os.sched_getaffinity(0)) if _has_affinity() else os.cpu_count() or 1
        fit = max(cores // CORES_EACH, 1)
        on_gpu = any(not plan.job.probe.device.startswith("cpu") for plan in plans)
        allowed = asked or (1 if on_gpu else fit)
        if launched() is not None:
            allowed = 1
        return cls(
            at_once=min(allowed, len(plans)),
            silent=ctx.params["no_progress"],
            quiet=ctx.params["quiet"],
        )


def project(ctx: typer.Context) -> Settings:
    """Returns the settings that the command read."""
    found = ctx.params["config"]
    return found if isinstance(found, Settings) else Settings()


def plans(ctx: typer.Context, targets: Sequence[TargetSettings]) -> list[Plan]:
    """Returns the scan of each target.

    Raises:
        BadConfig: an option has no valid form, or a target needs code that nobody
            allowed on the command line.
    """
    return [_plan(ctx, target) for target in targets]


def _plan(ctx: typer.Context, target: TargetSettings) -> Plan:
    spec = code(target.values)
    if spec and not ctx.params["allow_code"]:
        raise BadConfig(
            f"target '{visible(target.name)}' runs code: {visible(spec)}",
            hint="read it, then allow it where the command is typed: --allow-code",
        )
    given = {
        **_defaults(),
        **settled(ctx),
        **deciding.over(ctx, target.values),
        **_depth(ctx),
        # Typed from where the user is; the scans start from the configuration.
        "import_path": [
            str(Path(x).absolute()) for x in ctx.params["import_path"] or ()
        ],
        "config": target,
    }
    return Plan(
        name=target.name,
        job=jobs.scan_job(given),
        limits=process.meeting(jobs.limits(given), target.name),
        policy=jobs.policy(given, ctx.obj),
    )


def _depth(ctx: typer.Context) -> dict[str, Any]:
    """Returns how deep to measure where that was typed: it replaces both keys."""
    names = ("deep", "static")
    if not any(typed(ctx, name) for name in names):
        return {}
    return {name: ctx.params[name] for name in names}


def _defaults() -> dict[str, Any]:
    """Returns what ``vgaudit scan`` takes where nothing is said."""
    parameters = inspect.signature(scan).parameters.values()
    return {x.name: x.default for x in parameters if x.default is not x.empty}


def scanned(plans: Sequence[Plan], pace: Pace) -> dict[str, Report]:
    """Returns the report on each target, judged, in the order of the plans."""
    if pace.at_once > 1:
        _share_cores(pace.at_once)
    todo: queue.SimpleQueue[Plan] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
    for plan in plans:
        todo.put(plan)
    with Phases(silent=pace.silent, quiet=pace.quiet) as phases, Leash() as leash:
        board = _Board(phases, len(plans), alone=pace.at_once == 1)
        for _ in range(pace.at_once):
            # Daemons: an interrupt does not wait for them, and the leash ends
            # their workers.
            arguments = (todo, done, board, leash)
            threading.Thread(target=_work, args=arguments, daemon=True).start()
        found = dict(_collected(done, board, len(plans)))
    return {plan.name: found[plan.name] for plan in plans}


def _collected(
    done: queue.SimpleQueue[_Done], board: _Board, total: int
) -> Iterator[tuple[str, Report]]:
    for _ in range(total):
        plan, report, seconds = done.get()
        board.finished(plan.name, report, seconds)
        yield plan.name, report


def _work(
    todo: queue.SimpleQueue[Plan],
    done: queue.SimpleQueue[_Done],
    board: _Board,
    leash: Leash,
) -> None:
    while True:
        try:
            plan = todo.get_nowait()
        except queue.Empty:
            return
        started = time.monotonic()
        report = _scanned(plan, board, leash)
        done.put((plan, report, time.monotonic() - started))


def _scanned(plan: Plan, board: _Board, leash: Leash) -> Report:
    """Returns the report on a target; one on the failure where it failed."""
    watcher = _Watcher(plan.name, board)
    try:
        result = process.run(
            "scan", plan.job, limits=plan.limits, watcher=watcher, leash=leash
        )
        return judge(parse_audit(result), plan.policy)
    except VgauditError as error:
        return failed(error, plan.policy)
    except WorkerBug as bug:
        return failed(_bug(plan, bug), plan.policy)
    except Exception as error:
        return failed(_bug(plan, error), plan.policy)


def _bug(plan: Plan, error: Exception) -> InternalError:
    return InternalError(
        f"internal error: {visible(str(error), length=500)}",
        hint=f"this is a bug in vgaudit; `vgaudit scan {visible(plan.job.spec)}` "
        "writes what a report needs",
    )


def _share_cores(at_once: int) -> None:
    """Keeps scans that run at once from taking all cores each."""
    if THREADS not in os.environ:
        os.environ[THREADS] = str(max((os.cpu_count() or 1) // at_once, 1))


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")


class _Board:
    """What the user sees of all scans together."""

    def __init__(self, phases: Phases, total: int, *, alone: bool) -> None:
        self._phases = phases
        self._total = total
        self._done = 0
        self._alone = alone

    def phase(self, target: str, name: str) -> None:
        """Begins a phase of a target; of several at once, only their ends are told."""
        if self._alone:
            self._phases.phase(f"{self._step(1)} {visible(target)}: {name}")

    def note(self, target: str, line: str) -> None:
        """Shows a line that a model's own code wrote."""
        self._phases.note(f"{visible(target)}: {line}")

    def finished(self, target: str, report: Report, seconds: float) -> None:
        """Tells that a target is done."""
        self._done += 1
        state = report.status.upper()
        words = f"{self._step(0)} {visible(target)}: {state} after {seconds:.1f} s"
        self._phases.phase(words)

    def _step(self, ahead: int) -> str:
        return f"[{self._done + ahead}/{self._total}]"


@dataclass(frozen=True, slots=True)
class _Watcher:
    target: str
    board: _Board

    def phase(self, name: str) -> None:
        self.board.phase(self.target, name)

    def note(self, line: str) -> None:
        self.board.note(self.target, line)
