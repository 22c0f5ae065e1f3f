"""One training run: epochs, steps, validation, what is kept, and its record."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotRun
from vgaudit.flow import GradientFlow
from vgaudit.retraining import Epoch, LayerGradient, Progress, Run
from vgaudit.training import randomness
from vgaudit.training.course import WAY_OUT, Course, Diverged, Plan, Watcher
from vgaudit.training.judging import Judge
from vgaudit.training.method import Method, Scores, Setup
from vgaudit.training.metrics import metric_of
from vgaudit.training.recorder import Recorder, from_flow, weights_of
from vgaudit.training.standing import Standing, epoch_of, restored
from vgaudit.training.stepper import Stepper
from vgaudit.training.trainee import Sharded, Trainee, trainee
from vgaudit.training.weights import put

__all__ = ["MOST_SCANS", "Course", "Plan", "Runner", "Watcher"]

MOST_SCANS = 50
"""Epochs of a run after which the attenuation is measured, spread evenly."""

FROM_SCANS = (
    "the gradients of the layers are those of the network at the end of an epoch, "
    "where its steps took none of the ordinary loss"
)
WITHOUT_STEPS = (
    "where every step of an epoch was left out, the gradients of the layers are those "
    "of the network at its end"
)


class Runner:
    """Trains one model; its state can be saved between any two steps.

    Args:
        course: the data, and who trains and watches.
        plan: the method.
        model: on the device; trained in place. Where it is spread over processes, it
            stays whole in main memory, and has the kept weights in the end.
        state: of a run to continue, as from ``state_dict``.
        came: the model as it came, where ``model`` is a conversion of it; stays as it
            is. It is epoch 0 then.

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
        came: nn.Module | None = None,
    ) -> None:
        self._course, self._plan, self._crew = course, plan, course.crew
        self._came, self._converted = came, converted_of(state)
        self._judge = Judge(course, self._note)
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
                validate=self._validate if self._course.feed.judged else None,
                say=self._note,
                crew=self._crew,
                trainee=self._trainee,
            )
        )

    @property
    def delivered(self) -> nn.Module:
        """What has the kept weights in the end: the model as it came, or the trained.

        The same object, but for a model that was converted first.
        """
        came = self._came if self._standing.best == 0 else None
        return self.model if came is None else came

    def run(self) -> Run:
        """Trains to the end and leaves the kept weights in ``delivered``.

        Raises:
            VgauditError: the model or the method fails, or it diverges before any epoch
                was better than the model as it came.
            Interrupted: the watcher ended it; what was trained is in its checkpoint.
        """
        standing = self._standing
        # What building a method takes, here or again after a resume, is no training.
        self._since = time.monotonic()
        if not standing.done:
            self._begin()
        try:
            self._train()
        except Diverged as error:
            self._end_early(error)
        else:
            last = standing.done[-1].number
            if standing.scores is None and standing.best != last:
                self._take(last, None, self._trainee)
            if self._method.finish():
                self._close(standing.done[-1].number + 1, delivered=True)
        if self._crew.first:
            put(self.delivered, standing.kept)
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
            converted=self._converted,
        )

    def _begin(self) -> None:
        """Records the model as it came, and what a conversion alone made of it."""
        flow = self._judge.flow(self._trainee)
        layers = self._first_layers(flow)
        scores = self._judge.scores(self._trainee)
        first, came = _untrained(flow, layers, scores), self._trainee
        if self._came is not None:
            self._converted = first
            came = trainee(self._came, self._course, self._plan.options.parallel)
            flow, layers = self._layers_of(came)
            scores = self._judge.scores(came)
            first = _untrained(flow, layers, scores)
        self._standing.close(first)
        self._since = time.monotonic()
        self._take(0, scores, came)
        self._judge_patience(0)

    def _layers_of(
        self, came: Trainee
    ) -> tuple[GradientFlow | None, tuple[LayerGradient, ...]]:
        """Returns a scan of the model as it came, and its layers."""
        flow = self._judge.flow(came)
        if flow is None:
            return None, ()
        names = {id(p): name for name, p in came.model.named_parameters()}
        return flow, from_flow(flow, weights_of(came.model, flow), names)

    def _close(self, number: int, *, delivered: bool = False) -> None:
        """Validates and records an epoch, and keeps its weights if they are best."""
        standing = self._standing
        layers = () if delivered else self._recorder.finish_epoch()
        flow = self._scan(number, delivered=delivered)
        if not layers and flow is not None:
            layers = from_flow(flow, self._weights, self._names)
            idle = standing.skipped and standing.taken == standing.done[-1].steps
            self._note(WITHOUT_STEPS if idle else FROM_SCANS)
        scores = self._judge.scores(self._trainee)
        spent = time.monotonic() - self._since
        standing.close(
            Epoch(
                number=number,
                steps=standing.taken,
                train_loss=standing.loss,
                valid_loss=scores.loss if scores else None,
                metric=scores.metric if scores else None,
                lr=self._method.lr,
                seconds=standing.spent + spent,
                skipped=standing.skipped,
                attenuation=_attenuation(flow),
                layers=layers,
                figures=self._method.figures(),
                finish=delivered,
            )
        )
        self._run_seconds += 0.0 if delivered else spent
        self._since = time.monotonic()
        # Where nothing is validated, an epoch that ends in steps that cannot be taken
        # may be the beginning of a divergence: it counts once the run has its end.
        unsure = scores is None and standing.in_row > 0
        if delivered or (standing.is_better(scores) and not unsure):
            self._take(number, scores, self._trainee)
        self._judge_patience(number)

    def _take(self, number: int, scores: Scores | None, trainee: Trainee) -> None:
        """Keeps the present weights of a model as those of the best epoch."""
        standing = self._standing
        standing.best, standing.scores = number, scores
        standing.kept = trainee.weights()

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
        return self._judge.flow(self._trainee) if due else None

    def _validate(self) -> Scores:
        return self._judge.sure_scores(self._trainee)

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
            "converted": self._converted and dataclasses.asdict(self._converted),
            "method": self._method.state_dict(),
            "layers": list(self._weights),
            "recorder": self._recorder.state_dict(),
            "random": self._crew.all_of(randomness.states()),
        }


def converted_of(values: Mapping[str, Any] | None) -> Epoch | None:
    """Returns what a conversion alone made of a model, from a state or a record."""
    found = None if values is None else values.get("converted")
    return None if found is None else epoch_of(found)


def _untrained(
    flow: GradientFlow | None, layers: tuple[LayerGradient, ...], scores: Scores | None
) -> Epoch:
    """Returns the record of a model before any training."""
    return Epoch(
        number=0,
        steps=0,
        train_loss=None,
        valid_loss=scores.loss if scores else None,
        metric=scores.metric if scores else None,
        lr=None,
        seconds=0.0,
        attenuation=_attenuation(flow),
        layers=layers,
    )


def _attenuation(flow: GradientFlow | None) -> float | None:
    found = flow.attenuation if flow is not None else None
    return None if found is None else found.value
