"""A repair, whole: diagnose, plan, train all arms, judge, keep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from vgaudit.conversion import Edit
from vgaudit.data.seeding import generator_for
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.findings import Report
from vgaudit.fixing import (
    FEWEST_SEEDS,
    STARTS,
    Attempt,
    Fixing,
    FixOptions,
    Plan,
    Start,
)
from vgaudit.flow import GradientFlow
from vgaudit.judge import Policy, judge
from vgaudit.probe import probe
from vgaudit.probe.placing import parse_device
from vgaudit.repair import candidates, verdict
from vgaudit.repair.bench import Bench, Length, Made
from vgaudit.repair.ledger import Finished, Ledger
from vgaudit.repair.planning import planned, sentence
from vgaudit.retraining import Progress
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import Interrupted
from vgaudit.training.metrics import metric_of
from vgaudit.training.split import Feed, feed
from vgaudit.training.task import Task, chosen_loss, target_after
from vgaudit.training.weights import digest, put, snapshot
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
    around.say("scanning")
    before = measurement.audit(model, task.target)
    report = judge(before, asked.policy)
    found = dataclasses.replace(_diagnosed(report, options), before=before)
    if found.reason:
        return Repaired(model, (), found)
    bench = _bench(model, measurement, fed, before.flow, options.seed)
    series = Series(bench, report, asked, ledger, around)
    found = _tried(found, bench, series)
    if found.early or not found.kept:
        place = str(ledger.folder) if found.early and ledger.folder else ""
        return Repaired(model, (), dataclasses.replace(found, folder=place))
    around.say(f"measuring {found.kept}")
    kept, edits = series.kept(found)
    after = measurement.audit(kept, target_after(task.target, kept))
    return Repaired(kept, edits, dataclasses.replace(found, after=after))


def _measurement(task: Task, fed: Feed) -> Measurement:
    """Returns how the model is scanned, on a few training batches."""
    look = fed.look(task.data.batches, min(fed.size, _LOOK))
    loss = chosen_loss(task, task.model, look[0], parse_device(task.probe.device))
    return Measurement(look, fed.facts(), loss, task.probe)


def _bench(
    model: nn.Module,
    measurement: Measurement,
    fed: Feed,
    flow: GradientFlow,
    seed: int,
) -> Bench:
    choosing, judging = _halves(fed.valid_rows, seed)
    loss = measurement.loss
    assert loss is not None

    def scan(trained: nn.Module) -> GradientFlow:
        return probe(
            trained, measurement.batches, loss=loss, options=measurement.options
        )

    return Bench(
        model=model,
        flow=flow,
        look=measurement.batches,
        fed=fed,
        loss=loss,
        device=parse_device(measurement.options.device),
        choosing=choosing,
        judging=judging,
        scan=scan,
    )


def _tried(found: Fixing, bench: Bench, series: Series) -> Fixing:
    """Returns the diagnosis with what was tried, and the verdict at the end."""
    base = bench.base()
    tried = series.run()
    done = dataclasses.replace(
        found,
        metric=metric_of(bench.loss) or "loss",
        base=base,
        split=bench.fed.split,
        judged=len(bench.judging),
        notes=bench.fed.train.notes,
        plan=tried.plan,
        attempts=tuple(tried.attempts),
        seconds=sum(attempt.seconds for attempt in tried.attempts),
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


def _diagnosed(report: Report, options: FixOptions) -> Fixing:
    """Returns the diagnosis: healthy with the reason, or what failed.

    Raises:
        NothingMeasured: the scan could not tell.
    """
    if report.status == "inconclusive":
        raise NothingMeasured(
            "; ".join(report.warnings) or "nothing was measured",
            hint="a repair needs a diagnosis: `vgaudit scan` says what is missing",
        )
    failing = [finding for finding in report.findings if report.fails(finding)]
    names = tuple(f"{finding.code} {finding.name}" for finding in failing)
    advice = verdict.advice(report) if report.findings else ()
    if not failing:
        rest = report.count("warning")
        reason = "no finding fails the scan" + (
            f" ({rest} warnings; --fail-on warning repairs those too)" if rest else ""
        )
        return Fixing(options=options, status="healthy", reason=reason, advice=advice)
    if candidates.cause(report) is None:
        reason = (
            f"no treatment here is for {', '.join(names)}: the model was left alone"
        )
        return Fixing(
            options=options,
            status="nothing",
            reason=reason,
            findings=names,
            advice=advice,
        )
    return Fixing(
        options=options, status="interrupted", reason="", findings=names, advice=advice
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


class Series:
    """All trainings of a repair, one after the other; finished ones are kept.

    Args:
        bench: what they share. report: the diagnosis. asked: the repair.
        ledger: of what is finished. around: signals and progress.
    """

    def __init__(
        self,
        bench: Bench,
        report: Report,
        asked: Asked,
        ledger: Ledger,
        around: Surroundings,
    ) -> None:
        self._bench, self._report, self._asked = bench, report, asked
        self._ledger, self._around = ledger, around
        self._place = ""
        self.early = ""

    def run(self) -> Finished:
        """Runs what is not finished; ``early`` says why it stopped before the end."""
        done = self._begun()
        bench = dataclasses.replace(self._bench, allowed=_allowed(done.plan))
        length = Length(lap=done.plan.steps // done.plan.laps, count=done.plan.laps)
        finished = {(attempt.arm, attempt.seed) for attempt in done.attempts}
        wanted = done.plan.turns
        for number, (arm, seed) in enumerate(wanted, start=1):
            if (arm.name, seed) in finished:
                continue
            self._place = f"{number} of {len(wanted)}: {arm.name}, seed {seed}"
            self._around.say(f"training {self._place}")
            try:
                made = bench.train(arm, seed, length, self)
            except Interrupted:
                self.early = f"interrupted in training {self._place}"
                break
            self._note(done, made)
        self._bench = bench
        return done

    def _begun(self) -> Finished:
        identity = _identity(self._bench, self._asked)
        found = self._ledger.read(identity) if self._around.resume else None
        if found is not None:
            self._around.say(sentence(found.plan, self._asked.options))
            return found
        wanted = candidates.candidates(self._report)
        plan = planned(self._bench, wanted, self._asked.options, self._around.say)
        done = Finished(identity=identity, plan=plan)
        self._ledger.write(done)
        return done

    def _note(self, done: Finished, made: Made) -> None:
        """Keeps a finished training: the weights first, then the line that counts."""
        attempt = made.attempt
        others = [a.chosen for a in done.attempts if a.arm == attempt.arm]
        if not attempt.failure and attempt.chosen > max(others, default=-float("inf")):
            self._ledger.keep(attempt.arm, snapshot(made.model))
        if attempt.seed == done.plan.seeds[0] and not attempt.failure:
            attempt = dataclasses.replace(attempt, flow=self._bench.flow_of(made.model))
        done.attempts.append(attempt)
        self._ledger.write(done)

    def kept(self, found: Fixing) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Returns the model of the arm that is kept: its best seed by what chose."""
        best = best_of(found.of(found.kept))
        assert found.plan is not None
        arm = next(arm for arm in found.plan.arms if arm.name == found.kept)
        does = self._bench.resolved(arm, best.seed)
        model, edits = self._bench.start(does, best.seed)
        put(model, self._ledger.weights(found.kept))
        return model, edits

    def step(self, progress: Progress) -> None:
        """Ends the series where that was asked for.

        Raises:
            Interrupted: it was.
        """
        if self._around.stop():
            raise Interrupted
        self._around.report(progress)

    def say(self, sentence: str) -> None:
        """Says nothing: what one training says is in its record."""


def best_of(attempts: tuple[Attempt, ...]) -> Attempt:
    """Returns the training whose weights are kept: the first of the best."""
    return max(attempts, key=lambda attempt: attempt.chosen)


def _allowed(plan: Plan) -> tuple[Start, ...]:
    there = {"as-it-is", *(arm.start for arm in plan.arms)}
    return tuple(start for start in STARTS if start in there)


def _identity(bench: Bench, asked: Asked) -> dict[str, str]:
    """Returns what must be the same for a resumed repair to be the same one."""
    options = dataclasses.asdict(asked.options)
    return {
        "weights of the model": digest(bench.model)[:16],
        "data": bench.fed.train.spec,
        "training samples": str(bench.fed.split.train),
        "loss": bench.loss.name,
        "device": bench.device.type,
        **{f"--{name.replace('_', '-')}": str(v) for name, v in options.items()},
    }
