"""One arm, one seed: begin, train for the agreed steps, judge on unseen samples."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgaudit.conversion import Edit
from vgaudit.data.batch import Batch, Loss
from vgaudit.data.seeding import generator_for, private_random
from vgaudit.errors import CannotRewrite, CannotRun, VgauditError
from vgaudit.fixing import Arm, Attempt, Length
from vgaudit.flow import GradientFlow
from vgaudit.repair.chance import chance, constant_loss, exchanged
from vgaudit.repair.laps import laps
from vgaudit.repair.starts import Starts
from vgaudit.retraining import RetrainOptions, Schedule
from vgaudit.training import methods
from vgaudit.training.method import Scores
from vgaudit.training.metrics import score
from vgaudit.training.runner import Course, Plan, Runner, Watcher
from vgaudit.training.split import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One training to do: an arm with a seed, of the search or (None) of the proof.

    Attributes:
        schedule: of the learning rate.
    """

    arm: Arm
    seed: int
    rung: int | None
    length: Length
    schedule: Schedule = "auto"


@dataclass(frozen=True, slots=True)
class Made:
    """A trained model, how it was converted, and its record.

    ``diverged``: after an epoch that was worth keeping.
    """

    model: nn.Module
    edits: tuple[Edit, ...]
    attempt: Attempt
    diverged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all trainings of a repair have in common.

    Attributes:
        model: as it came, on the device; it stays so.
        starts: what to begin with. look: a few training batches.
        fed: the data, split once. loss: settled. device: of everything.
        choosing: rows of the samples that choose the epoch.
        judging: rows of the samples that judge; never looked at before that.
        scan: measures the gradient of a model.
    """

    model: nn.Module
    starts: Starts
    look: Sequence[Batch]
    fed: Feed
    loss: Loss
    device: torch.device
    choosing: Tensor
    judging: Tensor
    scan: Callable[[nn.Module], GradientFlow]

    def base(self) -> float:
        """Returns the score of the model as it came."""
        return self.score(self.model, self.judging)

    def chance(self) -> float | None:
        """Returns the score of the best constant answer."""
        return chance(self._batches(self.judging), self.loss)

    def constant_loss(self) -> float | None:
        """Returns the loss of the best constant answer; None where it is not known."""
        return constant_loss(self._batches(self.judging), self.loss)

    def strangers_loss(self) -> float | None:
        """Returns the loss of the model as it came with the labels of other samples.

        None where the labels are no tensor, or the samples too few.
        """
        generator = generator_for(self.fed.seed, "strangers")
        order = torch.randperm(len(self.judging), generator=generator)
        others = [*exchanged(self._batches(self.judging[order]))]
        batches = [batch for batch in others if batch is not None]
        if len(batches) < len(others):
            return None
        found = score(self.model, batches, self.loss, self.device)
        return None if found is None else found.loss

    def score(self, model: nn.Module, rows: Tensor) -> float:
        """Returns how good a model is on some samples; higher is better.

        Raises:
            CannotRun: none of them is usable.
        """
        return higher(self.scores(model, rows))

    def scores(self, model: nn.Module, rows: Tensor) -> Scores:
        """Returns loss and metric of a model on some samples.

        Raises:
            CannotRun: none of them is usable.
        """
        found = score(model, self._batches(rows), self.loss, self.device)
        if found is None:
            raise CannotRun("no sample that was held out is usable")
        return found

    def _batches(self, rows: Tensor) -> Iterator[Batch]:
        return dataclasses.replace(self.fed, valid_rows=rows).validation()

    def start(self, arm: Arm, seed: int) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Returns the model that an arm begins with; the same each time.

        Raises:
            CannotRewrite: the model cannot be changed so.
        """
        model, edits = self.starts.begun(arm.start, seed=seed)
        return model.to(self.device), edits

    def train(self, turn: Turn, watcher: Watcher) -> Made:
        """Trains one arm with one seed, and scores what came of it.

        Raises:
            Interrupted: the watcher ended it.
            VgauditError: the model as it came cannot be scored.
        """
        began = time.monotonic()
        try:
            model, edits = self.start(turn.arm, turn.seed)
            with private_random():
                runner = self.runner(turn, model, watcher)
                run = runner.run()
        except (CannotRewrite, CannotRun) as error:
            failed = self._failed(turn, error.message, time.monotonic() - began)
            return Made(self.model, (), failed)
        done = Attempt(
            arm=turn.arm.name,
            seed=turn.seed,
            rung=turn.rung,
            run=run,
            score=self.score(runner.model, self.judging),
            chosen=self.score(runner.model, self.choosing),
            steps=run.epochs[-1].steps,
            seconds=time.monotonic() - began,
        )
        return Made(runner.model, edits, done, runner.diverged)

    def _failed(self, turn: Turn, why: str, seconds: float) -> Attempt:
        return Attempt(
            arm=turn.arm.name,
            seed=turn.seed,
            rung=turn.rung,
            run=None,
            score=self.base(),
            chosen=-math.inf,
            steps=0,
            seconds=seconds,
            failure=why,
        )

    def runner(self, turn: Turn, model: nn.Module, watcher: Watcher) -> Runner:
        """Returns the run that trains a model in place.

        Raises:
            CannotRewrite: the method cannot train it.
        """
        arm, length, seed = turn.arm, turn.length, turn.seed
        feed = laps(self.fed, lap=length.lap, seed=seed, valid=self.choosing)
        course = Course(
            feed=feed, loss=self.loss, device=self.device, scan=None, watcher=watcher
        )
        options = RetrainOptions(
            method=arm.method,  # type: ignore[arg-type]
            epochs=length.count,
            lr=arm.lr,
            seed=seed,
            schedule=turn.schedule,
        )
        entry = methods.entry(options)
        prepared = entry.prepare(model, self.look, options)
        plan = Plan(name=arm.name, entry=entry, options=options)
        return Runner(course, plan, prepared.model)

    def flow_of(self, model: nn.Module) -> GradientFlow | None:
        """Returns the gradient flow of a trained model; None where it fails."""
        try:
            return self.scan(model)
        except VgauditError:
            return None


def higher(scores: Scores) -> float:
    """Returns accuracy or R², else the negative loss: higher is better.

    What is no number is worst.
    """
    found = scores.metric if scores.metric is not None else -scores.loss
    return -math.inf if math.isnan(found) else found
