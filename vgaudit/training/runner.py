"""One training run: epochs, steps, validation, what is kept, and its record."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotRun, VgauditError
from vgaudit.flow import GradientFlow
from vgaudit.retraining import Epoch, LayerGradient, Progress, Run
from vgaudit.training import randomness
from vgaudit.training.course import WAY_OUT, Course, Diverged, Plan, Watcher
from vgaudit.training.method import Method, Scores, Setup
from vgaudit.training.metrics import metric_of, score
from vgaudit.training.recorder import Recorder, from_flow, weights_of
from vgaudit.training.standing import Standing, restored
from vgaudit.training.stepper import Stepper
from vgaudit.training.trainee import Sharded, trainee
from vgaudit.training.weights import put

__all__ = ["MOST_SCANS", "Course", "Plan", "Runner", "Watcher"]

MOST_SCANS = 50
"""Epochs of a run after which the attenuation is measured, spread evenly."""

FROM_SCANS = (
    "the gradients of the layers are those of the network at the end of an epoch, "
    "where its steps took none of the ordinary loss"
)


class Runner:
    """Trains one model; its state can be saved between any two steps.

    Args:
        course: the data, and who trains and watches.
        plan: the method.
        model: on the device; trained in place. Where it is spread over processes, it
            stays whole in main memory, and has the kept weights in the end.
        state: of a run to continue, as from ``state_dict``.

    Attributes:
        diverged: it ended so, after an epoch that was worth keeping.
    """

    def __init__(
        self,
        course: Course,
        plan: Plan,
        model: nn.Module,
        *,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._course, self._plan, self._crew = course, plan, course.crew
        options = plan.options
        self.diverged = False
        self._modes = [(module, module.training) for module in model.modules()]
        self._standing = Standing(parts=options.accumulate)
        if state is not None:
            self._standing = restored(state["standing"])
            put(model, state["model"])
        self._trainee = trainee(model, course, options.parallel)
        self.model = self._trainee.plain
        self._stepper = Stepper(course, plan, standing=self._standing, note=self._note)
        self._steps = self._stepper.steps
        self._epochs = options.epochs or plan.entry.epochs(model, options)
        named = self._trainee.model.named_parameters()
        self._names = {id(p): name for name, p in named}
        self._since = time.monotonic()
        self._run_seconds, self._run_steps = 0.0, 0
        self._record_flow_of(weights_of(self._trainee.model, None))
        randomness.seed_all(options.seed + self._crew.rank)
        self._method = self._build()
        if state is not None:
            weights = weights_of(self._trainee.model, None)
            self._record_flow_of({n: weights[n] for n in state["layers"]})
            self._recorder.load_state_dict(state["recorder"])
            self._method.load_state_dict(state["method"])
            randomness.restore_one(state["random"], self._crew.rank)

    def _build(self) -> Method:
        # Beside the plain model, which is looked at.
        spread = isinstance(self._trainee, Sharded)
        home = torch.device("cpu") if spread else self._course.device
        example = self._stepper.example(home)
        self._trainee.model.train()
        return self._plan.entry.build(
            Setup(
                model=self._trainee.model,
                loss=self._course.loss,
                example=example,
                options=self._plan.options,
                epochs=self._epochs,
                steps=self._epochs * self._steps,
                device=self._course.device,
                observe=lambda: self._recorder.observe(),
                validate=self._sure_scores if self._course.feed.judged else None,
                say=self._note,
                crew=self._crew,
                trainee=self._trainee,
            )
        )

    def run(self) -> Run:
        """Trains to the end and leaves the kept weights in the model.

        Raises:
            VgauditError: the model or the method fails, or it diverges before any epoch
                was better than the model as it came.
            Interrupted: the watcher ended it; what was trained is in its checkpoint.
        """
        standing = self._standing
        # What building a method takes, here or again after a resume, is no training.
        self._since = time.monotonic()
        if not standing.done:
            self._close(0)
        try:
            self._train()
        except Diverged as error:
            self._end_early(error)
        else:
            last = standing.done[-1].number
            if standing.scores is None and standing.best != last:
                self._take(last, None)
            if self._method.finish():
                self._close(standing.done[-1].number + 1, delivered=True)
        if self._crew.first:
            put(self.model, standing.kept)
        for module, mode in self._modes:
            module.training = mode
        return self.record()

    def _train(self) -> None:
        standing = self._standing
        while not standing.stopped and standing.epoch <= self._epochs:
            for _ in self._stepper.epoch(self._method, self._trainee):
                self._run_steps += 1
                self._tell()
            self._close(standing.epoch)
            standing.epoch, standing.position = standing.epoch + 1, 0
            self._tell()
        if standing.taken == 0:
            name = self._plan.name
            reason = standing.defect or "the data is used up"
            raise CannotRun(f"{name}: no step could be taken: {reason}", hint=WAY_OUT)

    def _end_early(self, error: Diverged) -> None:
        """Ends a run that diverged with the best of the epochs that it finished.

        Raises:
            CannotRun: none was better than the model as it came.
        """
        standing = self._standing
        if standing.best == 0:
            raise CannotRun(f"{self._plan.name}: {error}", hint=WAY_OUT) from error
        self.diverged = True
        standing.stopped = (
            f"in epoch {standing.epoch} of {self._epochs}, where it diverged: {error}; "
            f"{WAY_OUT}"
        )

    def record(self) -> Run:
        """Returns what was done so far."""
        standing = self._standing
        return Run(
            name=self._plan.name,
            epochs=tuple(standing.done),
            best=standing.best,
            stopped=standing.stopped,
            notes=(*standing.notes, *standing.left_out()),
            judged=standing.scores.samples if standing.scores else 0,
        )

    def _close(self, number: int, *, delivered: bool = False) -> None:
        """Validates and records an epoch, and keeps its weights if they are best."""
        standing = self._standing
        trained = number > 0 and not delivered
        layers = self._recorder.finish_epoch() if trained else ()
        flow = self._scan(number, delivered=delivered)
        if number == 0:
            layers = self._first_layers(flow)
        elif not layers and flow is not None:
            layers = from_flow(flow, self._weights, self._names)
            self._note(FROM_SCANS)
        scores = self._scores()
        attenuation = flow.attenuation if flow is not None else None
        spent = time.monotonic() - self._since
        standing.close(
            Epoch(
                number=number,
                steps=standing.taken,
                train_loss=standing.loss,
                valid_loss=scores.loss if scores else None,
                metric=scores.metric if scores else None,
                lr=self._method.lr if number else None,
                seconds=standing.spent + spent if number else 0.0,
                skipped=standing.skipped,
                attenuation=attenuation.value if attenuation is not None else None,
                layers=layers,
                figures=self._method.figures() if number else {},
            )
        )
        self._run_seconds += spent if trained else 0.0
        self._since = time.monotonic()
        # Where nothing is validated, an epoch that ends in steps that cannot be taken
        # may be the beginning of a divergence: it counts once the run has its end.
        unsure = scores is None and standing.in_row > 0
        if delivered or number == 0 or (standing.is_better(scores) and not unsure):
            self._take(number, scores)
        self._judge_patience(number)

    def _take(self, number: int, scores: Scores | None) -> None:
        """Keeps the present weights as those of the best epoch."""
        standing = self._standing
        standing.best, standing.scores = number, scores
        standing.kept = self._trainee.weights()

    def _judge_patience(self, number: int) -> None:
        standing, patience = self._standing, self._plan.options.patience
        waited = number - standing.best
        if patience is not None and waited >= patience and number < self._epochs:
            standing.stopped = (
                f"after epoch {number} of {self._epochs}: none was better for {waited}"
            )

    def _record_flow_of(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = dict(weights)
        self._recorder = Recorder(self._weights, self._steps)

    def _first_layers(self, flow: GradientFlow | None) -> tuple[LayerGradient, ...]:
        """Returns the flow before training; puts the layers in forward order."""
        weights = weights_of(self._trainee.model, flow)
        # What only the first rank has measured, all follow: norms are taken together.
        order = self._crew.from_first(list(weights))
        if flow is None and self._crew.first:
            return ()
        self._record_flow_of({name: weights[name] for name in order})
        return () if flow is None else from_flow(flow, self._weights, self._names)

    def _scan(self, number: int, *, delivered: bool) -> GradientFlow | None:
        every = max(1, math.ceil(self._epochs / MOST_SCANS))
        due = number % every == 0 or number == self._epochs or delivered
        if self._course.scan is None or not due:
            return None
        shown = self._trainee.show()
        if not self._crew.first:
            return None
        try:
            return self._course.scan(shown)
        except VgauditError as error:
            self._note(f"the attenuation was not measured: {error.message}")
            return None

    def _scores(self) -> Scores | None:
        """Returns the validation scores as the model is; None without validation.

        Raises:
            CannotRun: no validation sample can be used.
        """
        held = self._course.feed.judged
        if not held:
            return None
        scores = self._score()
        if scores is None:
            raise CannotRun(
                f"no validation sample is usable: all {held} hold NaN or infinity, or "
                "cannot be read",
                hint="look at how the data is read and scaled",
            )
        if scores.samples < held:
            self._note(
                f"{held - scores.samples} of {held} validation samples hold NaN or "
                "infinity, or cannot be read: every score is without them"
            )
        return scores

    def _score(self) -> Scores | None:
        course, crew = self._course, self._crew
        self._trainee.settle()
        model, loss = self._trainee.model, course.loss
        if isinstance(self._trainee, Sharded):
            # Each pass gathers the weights of all ranks: all run the same batches.
            return score(model, course.feed.validation(), loss, course.device)
        batches = course.feed.validation(crew.part)
        return score(model, batches, loss, course.device, crew=crew)

    def _sure_scores(self) -> Scores:
        scores = self._scores()
        assert scores is not None
        return scores

    def _note(self, sentence: str) -> None:
        if sentence not in self._standing.notes:
            self._standing.notes.append(sentence)
            self._course.watcher.say(sentence)

    def _tell(self) -> None:
        standing = self._standing
        last = standing.done[-1]
        done = (standing.epoch - 1) * self._steps + standing.position
        total = self._epochs * self._steps
        running = self._run_seconds + time.monotonic() - self._since
        eta = running / self._run_steps * (total - done) if self._run_steps else None
        self._course.watcher.step(
            Progress(
                run=self._plan.name,
                epoch=min(standing.epoch, self._epochs),
                epochs=self._epochs,
                finished=last.number,
                step=done,
                steps=total,
                measure=metric_of(self._course.loss),
                loss=last.train_loss if standing.loss is None else standing.loss,
                metric=last.metric,
                attenuation=last.attenuation,
                eta=eta,
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a resumed run needs; training goes on bit-equal on a CPU.

        Collective; whole on the first rank, whatever the number of ranks.
        """
        standing = self._standing.state_dict()
        standing["spent"] += time.monotonic() - self._since
        return {
            "standing": standing,
            "model": self._trainee.weights(),
            "method": self._method.state_dict(),
            "layers": list(self._weights),
            "recorder": self._recorder.state_dict(),
            "random": self._crew.all_of(randomness.states()),
        }
