"""A repair, whole: diagnose, plan, train all arms, judge, keep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import nn

from vgaudit.conversion import Edit
from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.findings import Report
from vgaudit.fixing import Fixing, FixOptions
from vgaudit.flow import Audit
from vgaudit.judge import Policy, judge
from vgaudit.repair import candidates, verdict
from vgaudit.repair.bench import Bench
from vgaudit.repair.diagnosis import diagnosed
from vgaudit.repair.ledger import Ledger
from vgaudit.repair.scanning import LEAST_JUDGED, Scanned, scanned
from vgaudit.repair.series import Series
from vgaudit.repair.sharing import ONE, Sharing
from vgaudit.repair.trial import Trials
from vgaudit.training.campaign import Surroundings
from vgaudit.training.metrics import metric_of
from vgaudit.training.task import Task, target_after


@dataclass(frozen=True, slots=True)
class Repaired:
    """What is kept: the model, how it was converted, and all that was tried."""

    model: nn.Module
    edits: tuple[Edit, ...]
    fixing: Fixing


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A repair to do.

    Attributes:
        task: the model with its data, both opened.
        options: budget, seeds, split.
        policy: what counts as sick.
    """

    task: Task
    options: FixOptions
    policy: Policy


def fix(
    asked: Asked, ledger: Ledger, around: Surroundings, sharing: Sharing = ONE
) -> Repaired:
    """Diagnoses a model, tries what may help beside controls, and keeps what does.

    Several ranks share the trainings. All know what was tried; what the first one
    returns is whole, the others keep the model as it came.

    Args:
        asked: the repair.
        ledger: of what is finished; in a folder on the first rank alone.
        around: signals and progress.
        sharing: the ranks.

    Raises:
        VgauditError: the options do not fit, the model or its data fail, or there is
            too little to judge.
    """
    around.say("scanning")
    begun = scanned(asked.task, asked.options)
    # What all decide by is what the first rank measured.
    before = sharing.settled(Audit, lambda: begun.before)
    begun = dataclasses.replace(begun, before=before)
    report = judge(before, asked.policy)

    def evidence() -> Fixing:
        return _evidence(report, asked, begun=begun, ledger=ledger, around=around)

    found = sharing.settled(Fixing, evidence)
    if found.reason:
        return Repaired(begun.model, (), _placed(found, ledger))
    bench = begun.bench(asked.options.seed)
    wanted = candidates.candidates(report) or candidates.treatments(
        begun.before.flow, "it stays at chance, though no finding fails"
    )
    series = Series(
        *(bench, wanted, asked.options),
        ledger=ledger,
        around=around,
        sharing=sharing,
    )
    try:
        found = _tried(found, bench, series)
    except (CannotRewrite, CannotRun) as error:
        if found.trial is None:
            raise
        # The trial has told something all the same.
        found = verdict.ended(found, "nothing", error.message)
    if found.early or not found.kept or not sharing.crew.first:
        return Repaired(begun.model, (), _placed(found, ledger))
    around.say(f"measuring {found.kept}")
    kept, edits = series.kept(found)
    target = target_after(asked.task.target, kept)
    after = begun.measurement.audit(kept, target)
    return Repaired(kept, edits, dataclasses.replace(found, after=after))


def tried(asked: Asked, ledger: Ledger, around: Surroundings) -> Fixing:
    """Returns the diagnosis with the trial where one is made, and treats nothing.

    For studies; without a reason where ``fix`` would treat the model.

    Raises:
        VgauditError: as ``fix``.
    """
    begun = scanned(asked.task, asked.options)
    report = judge(begun.before, asked.policy)
    return _evidence(report, asked, begun=begun, ledger=ledger, around=around)


def _evidence(
    report: Report,
    asked: Asked,
    *,
    begun: Scanned,
    ledger: Ledger,
    around: Surroundings,
) -> Fixing:
    """Returns the diagnosis, a healthy one with its evidence; no reason, if none is.

    Where no trial is made the reason says so.
    """
    found = diagnosed(report, asked.options)
    if found.status != "healthy":
        return found
    options, held = asked.options, len(begun.fed.valid_rows)
    if options.no_trial:
        why = "whether it trains was not tried (--no-trial)"
        return verdict.ended(found, "healthy", f"{found.reason}; {why}")
    if held < 2 * LEAST_JUDGED:
        why = f"{held} samples held out are too few to try whether it trains"
        return verdict.ended(found, "healthy", f"{found.reason}; {why}")
    bench = begun.bench(options.seed)
    trials = Trials(bench, options, ledger, around)
    return trials.run(found, asked.policy.optimizer)


def _placed(found: Fixing, ledger: Ledger) -> Fixing:
    """Returns a repair that keeps no model, with the folder if it can be resumed."""
    place = str(ledger.folder) if found.early and ledger.folder else ""
    return dataclasses.replace(found, folder=place)


def searched(asked: Asked, ledger: Ledger, around: Surroundings) -> Fixing:
    """Tries all treatments beside the controls, whatever the diagnosis is.

    For studies of what could have been repaired; nothing is written.

    Raises:
        VgauditError: as ``fix``.
    """
    begun = scanned(asked.task, asked.options)
    bench = begun.bench(asked.options.seed)
    wanted = candidates.treatments(begun.before.flow, "without a diagnosis")
    series = Series(bench, wanted, asked.options, ledger=ledger, around=around)
    found = Fixing(options=asked.options, status="interrupted", reason="")
    return _tried(found, bench, series)


def _tried(found: Fixing, bench: Bench, series: Series) -> Fixing:
    """Returns the diagnosis with what was tried, and the verdict at the end."""
    base = bench.base()
    finished = series.run()
    assert finished.plan is not None
    done = dataclasses.replace(
        found,
        metric=metric_of(bench.loss) or "loss",
        base=base,
        chance=bench.chance(),
        split=bench.fed.split,
        judged=len(bench.judging),
        notes=bench.fed.train.notes,
        plan=finished.plan,
        attempts=tuple(finished.attempts),
        seconds=found.seconds + sum(attempt.seconds for attempt in finished.attempts),
    )
    if series.early:
        return dataclasses.replace(done, reason=series.early, early=series.early)
    return verdict.judged(done)
