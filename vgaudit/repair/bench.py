"""One arm, one seed: begin, train for the agreed steps, judge on unseen samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgaudit.conversion import Edit
from vgaudit.data.batch import Batch, Loss
from vgaudit.data.seeding import generator_for, private_random
from vgaudit.errors import CannotRewrite, CannotRun, VgauditError
from vgaudit.fixing import Arm, Attempt, Start
from vgaudit.flow import GradientFlow
from vgaudit.repair import candidates
from vgaudit.repair.laps import laps
from vgaudit.repair.starts import begun
from vgaudit.retraining import RetrainOptions
from vgaudit.training import methods
from vgaudit.training.method import Scores
from vgaudit.training.metrics import score
from vgaudit.training.runner import Course, Plan, Runner, Watcher
from vgaudit.training.split import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long every training is: ``count`` laps of ``lap`` optimizer steps."""

    lap: int
    count: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.lap * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One training to do: under ``name``, what ``arm`` says, with a seed."""

    name: str
    arm: Arm
    seed: int
    length: Length


@dataclass(frozen=True, slots=True)
class Made:
    """A trained model, how it was converted, and its record."""

    model: nn.Module
    edits: tuple[Edit, ...]
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all trainings of a repair have in common.

    Attributes:
        model: as it came, on the device; it stays so.
        flow: of its scan. look: a few training batches.
        fed: the data, split once. loss: settled. device: of everything.
        choosing: rows of the samples that choose the epoch.
        judging: rows of the samples that judge; never looked at before that.
        scan: measures the gradient of a model.
        allowed: starts that random repair may draw.
    """

    model: nn.Module
    flow: GradientFlow
    look: Sequence[Batch]
    fed: Feed
    loss: Loss
    device: torch.device
    choosing: Tensor
    judging: Tensor
    scan: Callable[[nn.Module], GradientFlow]
    allowed: tuple[Start, ...] = ("as-it-is", "reinit")

    def base(self) -> float:
        """Returns the score of the model as it came."""
        return self.score(self.model, self.judging)

    def score(self, model: nn.Module, rows: Tensor) -> float:
        """Returns how good a model is on some samples; higher is better.

        Raises:
            CannotRun: none of them is usable.
        """
        feed = dataclasses.replace(self.fed, valid_rows=rows)
        found = score(model, feed.validation(), self.loss, self.device)
        if found is None:
            raise CannotRun("no sample that was held out is usable")
        return higher(found)

    def start(self, arm: Arm, seed: int) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Returns the model that an arm begins with; the same each time.

        Raises:
            CannotRewrite: the model cannot be changed so.
        """
        given = self.model
        model, edits = begun(given, arm.start, self.flow, self.look, seed=seed)
        return model.to(self.device), edits

    def resolved(self, arm: Arm, seed: int) -> Arm:
        """Returns what an arm does with a seed: itself, or what is drawn."""
        if not arm.drawn:
            return arm
        return candidates.drawn(generator_for(seed, "random repair"), self.allowed)

    def train(self, arm: Arm, seed: int, length: Length, watcher: Watcher) -> Made:
        """Trains one arm with one seed, and scores what came of it.

        Raises:
            Interrupted: the watcher ended it.
            VgauditError: the model as it came cannot be scored.
        """
        began = time.monotonic()
        does = self.resolved(arm, seed)
        drawn = does.name if arm.drawn else ""
        try:
            model, edits = self.start(does, seed)
            with private_random():
                turn = Turn(name=arm.name, arm=does, seed=seed, length=length)
                runner = self.runner(turn, model, watcher)
                run = runner.run()
        except (CannotRewrite, CannotRun) as error:
            base = self.base()
            failed = Attempt(
                arm=arm.name,
                seed=seed,
                run=None,
                score=base,
                chosen=-float("inf"),
                steps=0,
                seconds=time.monotonic() - began,
                did=drawn,
                failure=error.message,
            )
            return Made(self.model, (), failed)
        done = Attempt(
            arm=arm.name,
            seed=seed,
            run=run,
            score=self.score(runner.model, self.judging),
            chosen=self.score(runner.model, self.choosing),
            steps=run.epochs[-1].steps,
            seconds=time.monotonic() - began,
            did=drawn,
        )
        return Made(runner.model, edits, done)

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
        )
        entry = methods.entry(options)
        prepared = entry.prepare(model, self.look, options)
        plan = Plan(name=turn.name, entry=entry, options=options)
        return Runner(course, plan, prepared.model)

    def flow_of(self, model: nn.Module) -> GradientFlow | None:
        """Returns the gradient flow of a trained model; None where it fails."""
        try:
            return self.scan(model)
        except VgauditError:
            return None


def higher(scores: Scores) -> float:
    """Returns accuracy or R², else the negative loss: higher is better."""
    return scores.metric if scores.metric is not None else -scores.loss
