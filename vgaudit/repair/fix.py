"""A repair, whole: diagnose, plan, train all arms, judge, keep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from vgaudit.conversion import Edit
from vgaudit.data.seeding import generator_for
from vgaudit.errors import BadConfig, CannotRewrite, CannotRun
from vgaudit.fixing import FEWEST_SEEDS, Fixing, FixOptions
from vgaudit.flow import Audit, GradientFlow
from vgaudit.judge import Policy, judge
from vgaudit.probe import probe
from vgaudit.probe.placing import parse_device
from vgaudit.repair import candidates, verdict
from vgaudit.repair.bench import Bench
from vgaudit.repair.diagnosis import diagnosed
from vgaudit.repair.ledger import Ledger
from vgaudit.repair.series import Series
from vgaudit.repair.starts import Starts
from vgaudit.repair.trial import Trials
from vgaudit.training.campaign import Surroundings
from vgaudit.training.metrics import metric_of
from vgaudit.training.split import Feed, feed
from vgaudit.training.task import Task, chosen_loss, target_after
from vgaudit.treatments import Measurement

_LOOK = 64
LEAST_JUDGED = 20
"""Samples for judging below which nothing could be told apart."""

MOST_CHOOSING, MOST_JUDGING = 1000, 5000
"""Samples beyond which validation would only take time from training."""


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


def fix(asked: Asked, ledger: Ledger, around: Surroundings) -> Repaired:
    """Diagnoses a model, tries what may help beside controls, and keeps what does.

    Raises:
        VgauditError: the options do not fit, the model or its data fail, or there is
            too little to judge.
    """
    around.say("scanning")
    scanned = _scanned(asked)
    report = judge(scanned.before, asked.policy)
    found = diagnosed(report, asked.options)
    if found.status == "healthy":
        found = _on_trial(found, asked, scanned=scanned, ledger=ledger, around=around)
    if found.reason:
        return Repaired(scanned.model, (), _placed(found, ledger))
    bench = scanned.bench(asked.options.seed)
    wanted = candidates.candidates(report) or candidates.treatments(
        scanned.before.flow, "it stays at chance, though no finding fails"
    )
    series = Series(bench, wanted, asked.options, ledger, around)
    try:
        found = _tried(found, bench, series)
    except (CannotRewrite, CannotRun) as error:
        if found.trial is None:
            raise
        # The trial has told something all the same.
        found = verdict.ended(found, "nothing", error.message)
    if found.early or not found.kept:
        return Repaired(scanned.model, (), _placed(found, ledger))
    around.say(f"measuring {found.kept}")
    kept, edits = series.kept(found)
    target = target_after(asked.task.target, kept)
    after = scanned.measurement.audit(kept, target)
    return Repaired(kept, edits, dataclasses.replace(found, after=after))


def _on_trial(
    found: Fixing,
    asked: Asked,
    *,
    scanned: _Scanned,
    ledger: Ledger,
    around: Surroundings,
) -> Fixing:
    """Returns a healthy diagnosis with its evidence; without a reason, if it is none.

    Where no trial is made the reason says so.
    """
    options, held = asked.options, len(scanned.fed.valid_rows)
    if options.no_trial:
        why = "whether it trains was not tried (--no-trial)"
        return verdict.ended(found, "healthy", f"{found.reason}; {why}")
    if held < 2 * LEAST_JUDGED:
        why = f"{held} samples held out are too few to try whether it trains"
        return verdict.ended(found, "healthy", f"{found.reason}; {why}")
    bench = scanned.bench(options.seed)
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
    scanned = _scanned(asked)
    bench = scanned.bench(asked.options.seed)
    wanted = candidates.treatments(scanned.before.flow, "without a diagnosis")
    series = Series(bench, wanted, asked.options, ledger, around)
    found = Fixing(options=asked.options, status="interrupted", reason="")
    return _tried(found, bench, series)


@dataclass(frozen=True, slots=True)
class _Scanned:
    """The model on its device, its data split, and its scan."""

    model: nn.Module
    fed: Feed
    measurement: Measurement
    before: Audit

    def bench(self, seed: int) -> Bench:
        """Returns what all trainings have in common."""
        choosing, judging = _halves(self.fed.valid_rows, seed)
        measurement = self.measurement
        loss, options = measurement.loss, measurement.options
        assert loss is not None

        def scan(trained: nn.Module) -> GradientFlow:
            return probe(trained, measurement.batches, loss=loss, options=options)

        return Bench(
            model=self.model,
            starts=Starts(self.model, self.before.flow, measurement.batches),
            look=measurement.batches,
            fed=self.fed,
            loss=loss,
            device=parse_device(options.device),
            choosing=choosing,
            judging=judging,
            scan=scan,
        )


def _scanned(asked: Asked) -> _Scanned:
    options, task = asked.options, asked.task
    _check(options)
    model = task.model.to(parse_device(task.probe.device))
    fed = feed(
        task.samples,
        None,
        share=options.valid_split,
        size=options.batch_size,
        seed=options.seed,
    )
    measurement = _measurement(task, fed)
    return _Scanned(model, fed, measurement, measurement.audit(model, task.target))


def _measurement(task: Task, fed: Feed) -> Measurement:
    """Returns how the model is scanned, on a few training batches."""
    look = fed.look(task.data.batches, min(fed.size, _LOOK))
    loss = chosen_loss(task, task.model, look[0], parse_device(task.probe.device))
    return Measurement(look, fed.facts(), loss, task.probe)


def _tried(found: Fixing, bench: Bench, series: Series) -> Fixing:
    """Returns the diagnosis with what was tried, and the verdict at the end."""
    base = bench.base()
    tried = series.run()
    assert tried.plan is not None
    done = dataclasses.replace(
        found,
        metric=metric_of(bench.loss) or "loss",
        base=base,
        chance=bench.chance(),
        split=bench.fed.split,
        judged=len(bench.judging),
        notes=bench.fed.train.notes,
        plan=tried.plan,
        attempts=tuple(tried.attempts),
        seconds=found.seconds + sum(attempt.seconds for attempt in tried.attempts),
    )
    if series.early:
        return dataclasses.replace(done, reason=series.early, early=series.early)
    return verdict.judged(done)


def _check(options: FixOptions) -> None:
    if options.seeds < FEWEST_SEEDS:
        raise BadConfig(
            f"--seeds is {options.seeds}",
            hint=f"give {FEWEST_SEEDS} or more: fewer tell nothing of the spread",
        )
    if not 0.0 < options.valid_split < 1.0:
        raise BadConfig(
            f"--valid-split is {options.valid_split:g}",
            hint="a repair needs samples to judge on: give a share such as 0.2",
        )
    if not options.budget > 0:
        raise BadConfig("the budget is not positive", hint="for example --budget 10m")
    if options.trials < 1:
        raise BadConfig(
            f"--trials is {options.trials}", hint="give 1 or more; 8 without it"
        )


def _halves(rows: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rows that choose epochs, and those that judge.

    Raises:
        BadConfig: there are too few.
    """
    half = len(rows) // 2
    if half < LEAST_JUDGED:
        raise BadConfig(
            f"{len(rows)} samples are held out, and half of them judge",
            hint=f"give more data, or a larger --valid-split: {2 * LEAST_JUDGED} "
            "samples at least",
        )
    order = torch.randperm(len(rows), generator=generator_for(seed, "judging"))
    choosing, judging = order[:half][:MOST_CHOOSING], order[half:][:MOST_JUDGING]
    return rows[choosing].sort().values, rows[judging].sort().values
