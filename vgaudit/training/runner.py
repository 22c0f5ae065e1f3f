"""One training run: epochs, steps, validation, what is kept, and its record."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRun, VgauditError
from vgaudit.flow import GradientFlow
from vgaudit.probe.forward import is_out_of_memory
from vgaudit.probe.tensors import cast
from vgaudit.retraining import Epoch, LayerGradient, Progress, RetrainOptions, Run
from vgaudit.training import randomness
from vgaudit.training.method import Entry, Method, Scores, Setup, StepOutcome
from vgaudit.training.metrics import metric_of, score
from vgaudit.training.recorder import Recorder, from_flow, weights_of
from vgaudit.training.split import Drawn, Feed
from vgaudit.training.standing import Standing, restored
from vgaudit.training.weights import put, snapshot

MOST_SCANS = 50
"""Epochs of a run after which the attenuation is measured, spread evenly."""

_WAY_OUT = "look at the data, lower --lr, or give --clip 1"


class Watcher(Protocol):
    """Who is told of every step; may end the training by raising."""

    def step(self, progress: Progress) -> None:
        """A step is done, and the training stands between two steps."""

    def say(self, sentence: str) -> None:
        """There is something that the user should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is the same for every run of one training.

    Attributes:
        feed: the data. loss: settled, not ``auto``.
        device: where to train.
        scan: measures a model on a few training batches; None measures nothing.
        watcher: told of every step.
    """

    feed: Feed
    loss: Loss
    device: torch.device
    scan: Callable[[nn.Module], GradientFlow] | None
    watcher: Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is.

    Attributes:
        name: of the run. entry: of its method. options: its own.
    """

    name: str
    entry: Entry
    options: RetrainOptions


class Runner:
    """Trains one model; its state can be saved between any two steps.

    Args:
        course: the data, and who watches.
        plan: the method.
        model: on the device; trained in place.
        state: of a run to continue, as from ``state_dict``.
    """

    def __init__(
        self,
        course: Course,
        plan: Plan,
        model: nn.Module,
        *,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self._course, self._plan = model, course, plan
        options = plan.options
        self._whole: Batch | None = None
        self._is_whole = plan.entry.whole(options)
        self._steps = 1 if self._is_whole else course.feed.steps
        self._epochs = options.epochs or plan.entry.epochs(model, options)
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._standing = Standing(parts=options.accumulate)
        self._since = time.monotonic()
        self._run_seconds, self._run_steps = 0.0, 0
        self._record_flow_of(weights_of(model, None))
        if state is not None:
            self._standing = restored(state["standing"])
            put(model, state["model"])
        randomness.seed_all(options.seed)
        self._method = self._build()
        if state is not None:
            weights = weights_of(model, None)
            self._record_flow_of({n: weights[n] for n in state["layers"]})
            self._recorder.load_state_dict(state["recorder"])
            self._method.load_state_dict(state["method"])
            randomness.restore(state["random"])

    def _build(self) -> Method:
        feed = self._course.feed
        if self._is_whole:
            example = self._everything()
        else:
            drawn = (feed.step(1, n, feed.order(1)) for n in range(feed.steps))
            usable = (d.batch for d in drawn if d.batch is not None and not d.defect)
            first = next(usable, None)
            if first is None:
                raise CannotRun("every batch holds NaN or infinity", hint=_WAY_OUT)
            example = self._on_device(first)
        self.model.train()
        return self._plan.entry.build(
            Setup(
                model=self.model,
                loss=self._course.loss,
                example=example,
                options=self._plan.options,
                epochs=self._epochs,
                steps=self._epochs * self._steps,
                device=self._course.device,
                observe=lambda: self._recorder.observe(),
                validate=self._sure_scores if len(feed.valid_rows) else None,
                say=self._note,
            )
        )

    def run(self) -> Run:
        """Trains to the end and leaves the kept weights in the model.

        Raises:
            VgauditError: the model or the method fail.
            Interrupted: the watcher ended it; what was trained is in its checkpoint.
        """
        standing = self._standing
        if not standing.done:
            self._close(0)
        while not standing.stopped and standing.epoch <= self._epochs:
            self._train_epoch()
            self._close(standing.epoch)
            standing.epoch, standing.position = standing.epoch + 1, 0
            self._tell()
        if standing.taken == 0:
            name = self._plan.name
            reason = standing.defect or "the data is used up"
            raise CannotRun(f"{name}: no step could be taken: {reason}", hint=_WAY_OUT)
        if self._method.finish():
            self._close(standing.done[-1].number + 1, delivered=True)
        put(self.model, standing.kept)
        return self.record()

    def record(self) -> Run:
        """Returns what was done so far."""
        standing = self._standing
        return Run(
            name=self._plan.name,
            epochs=tuple(standing.done),
            best=standing.best,
            stopped=standing.stopped,
            notes=tuple(standing.notes),
        )

    def _train_epoch(self) -> None:
        feed, standing = self._course.feed, self._standing
        order = feed.order(standing.epoch)
        self.model.train()
        while standing.position < self._steps:
            if self._is_whole:
                rows = torch.arange(len(feed.train_rows))
                drawn = Drawn(self._everything(), rows, "")
            else:
                drawn = feed.step(standing.epoch, standing.position, order)
            self._step(drawn)
            standing.position += 1
            self._run_steps += 1
            self._tell()

    def _step(self, drawn: Drawn) -> None:
        if drawn.batch is None or drawn.defect:
            self._skip(drawn.defect or "no sample of the batch can be read")
            return
        batch = drawn.batch if self._is_whole else self._on_device(drawn.batch)
        outcome = self._attempt(batch, drawn.rows)
        if outcome.skipped:
            self._skip(outcome.skipped)
        else:
            self._standing.take(outcome.loss, batch.size)

    def _attempt(self, batch: Batch, rows: Tensor) -> StepOutcome:
        """Takes a step, in smaller parts as long as memory runs out."""
        standing = self._standing
        while True:
            try:
                return self._method.step(batch, rows=rows, parts=standing.parts)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if standing.parts >= batch.size:
                    raise CannotRun(
                        "out of memory with one sample at a time",
                        hint="a smaller model or input, --device cpu, or --amp bf16",
                    ) from error
            if self._course.device.type == "cuda":
                torch.cuda.empty_cache()
            standing.parts = min(2 * standing.parts, batch.size)
            self._note(
                f"out of memory: batches of {batch.size} are computed in "
                f"{standing.parts} parts; the steps are those of whole batches"
            )

    def _skip(self, defect: str) -> None:
        standing = self._standing
        standing.skip(defect)
        if standing.in_row >= self._plan.options.most_skipped:
            raise CannotRun(
                f"{self._plan.name}: {standing.in_row} steps in a row could not be "
                f"taken; the last: {defect}",
                hint=_WAY_OUT,
            )

    def _close(self, number: int, *, delivered: bool = False) -> None:
        """Validates and records an epoch, and keeps its weights if they are best."""
        standing = self._standing
        trained = number > 0 and not delivered
        layers = self._recorder.finish_epoch() if trained else ()
        flow = self._scan(number, delivered=delivered)
        if number == 0 and flow is not None:
            layers = self._first_layers(flow)
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
                seconds=standing.spent + spent,
                skipped=standing.skipped,
                attenuation=attenuation.value if attenuation is not None else None,
                layers=layers,
                figures=self._method.figures() if number else {},
            )
        )
        self._run_seconds += spent if trained else 0.0
        self._since = time.monotonic()
        if delivered or not standing.kept or standing.is_better(scores):
            standing.best, standing.scores = number, scores
            standing.kept = snapshot(self.model)
        self._judge_patience(number)

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

    def _first_layers(self, flow: GradientFlow) -> tuple[LayerGradient, ...]:
        """Returns the flow before training; puts the layers in forward order."""
        self._record_flow_of(weights_of(self.model, flow))
        return from_flow(flow, self._weights, self._names)

    def _scan(self, number: int, *, delivered: bool) -> GradientFlow | None:
        every = max(1, math.ceil(self._epochs / MOST_SCANS))
        due = number % every == 0 or number == self._epochs or delivered
        if self._course.scan is None or not due:
            return None
        try:
            return self._course.scan(self.model)
        except VgauditError as error:
            self._note(f"the attenuation was not measured: {error.message}")
            return None

    def _scores(self) -> Scores | None:
        """Returns the validation scores as the model is."""
        course = self._course
        return score(self.model, course.feed.validation(), course.loss, course.device)

    def _sure_scores(self) -> Scores:
        scores = self._scores()
        if scores is None:
            raise CannotRun("no validation sample is usable", hint=_WAY_OUT)
        return scores

    def _everything(self) -> Batch:
        if self._whole is None:
            drawn = self._course.feed.everything()
            if drawn.batch is None or drawn.defect:
                raise CannotRun(
                    f"the training samples cannot be used at once: {drawn.defect}",
                    hint="remove the samples with NaN or infinity",
                )
            self._whole = self._on_device(drawn.batch)
        return self._whole

    def _on_device(self, batch: Batch) -> Batch:
        args, kwargs, labels = cast(
            (batch.args, batch.kwargs, batch.labels),
            device=self._course.device,
            dtype=None,
        )
        return dataclasses.replace(batch, args=args, kwargs=kwargs, labels=labels)

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
        """Returns all that a resumed run needs; training goes on bit-equal on a CPU."""
        standing = self._standing.state_dict()
        standing["spent"] += time.monotonic() - self._since
        return {
            "standing": standing,
            "model": snapshot(self.model),
            "method": self._method.state_dict(),
            "layers": list(self._weights),
            "recorder": self._recorder.state_dict(),
            "random": randomness.states(),
        }
