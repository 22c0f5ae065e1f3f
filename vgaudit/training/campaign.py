"""The treatment and its controls, one after the other, resumable as a whole."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vgaudit.data.seeding import private_random
from vgaudit.errors import BadConfig, CannotWrite
from vgaudit.retraining import Progress, RetrainOptions, Run
from vgaudit.training import methods
from vgaudit.training.checkpoint import ANEW, Interrupted, RunFolder, differences
from vgaudit.training.course import Course, Diverged, Plan
from vgaudit.training.failing import endings, failed
from vgaudit.training.identity import identity
from vgaudit.training.method import Prepared
from vgaudit.training.runner import Runner, converted_of
from vgaudit.training.standing import epoch_of
from vgaudit.training.weights import put, snapshot
from vgaudit.treatments.copying import copied

USUAL_EVERY = 60.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a training has to do with the world outside.

    Attributes:
        folder: for checkpoints; None writes none. Of several ranks only the first has
            one, and what it has is done together.
        every: seconds between two checkpoints.
        resume: continue from the folder's checkpoint.
        stop: tells whether to end after this step.
        report: told how far it is. say: told what the user should know.
    """

    folder: RunFolder | None = None
    every: float = USUAL_EVERY
    resume: bool = False
    stop: Callable[[], bool] = lambda: False
    report: Callable[[Progress], None] = lambda _progress: None
    say: Callable[[str], None] = lambda _sentence: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of a training.

    Attributes:
        model: with the kept weights: what was trained, or the model as it came where
            that had to be converted and no epoch was better.
        run, controls: the records; of an interrupted training what there is.
        interrupted: it was asked to end.
        at: how far it was then.
        notes: statements for the user.
    """

    model: nn.Module
    run: Run
    controls: tuple[Run, ...] = ()
    interrupted: bool = False
    at: Progress | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _State:
    """What a checkpoint holds beside the run it was taken in.

    Attributes:
        identity: what must be the same to resume.
        done: finished runs. kept: weights of the finished treatment.
    """

    identity: dict[str, Any]
    done: list[Run] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)


class Campaign:
    """Trains a prepared model, then the controls from the same start.

    Args:
        course: data, loss, device; its watcher is replaced by this object.
        prepared: what the method's entry made of the model; trained in place.
        options: of the treatment.
        around: checkpoints, signals, progress.
    """

    def __init__(
        self,
        course: Course,
        prepared: Prepared,
        options: RetrainOptions,
        around: Surroundings,
    ) -> None:
        self._course = dataclasses.replace(course, watcher=self)
        self._model, self._came = prepared.model, prepared.came
        self._around = around
        self._plans = _plans(options, prepared.model)
        self._untrained: nn.Module | None = None
        if len(self._plans) > 1:
            # Copied before any method has touched it, and kept in main memory.
            given = prepared.model if prepared.came is None else prepared.came
            self._untrained = copied(given)[0].cpu()
        self._crew = course.crew
        # Both are asked of the first rank, which alone has the folder.
        self._saves = self._crew.any(around.folder is not None)
        same = identity(course, prepared.model, options) if self._saves else {}
        self._state = _State(same)
        self._runner: Runner | None = None
        self._saved = time.monotonic()
        self._at: Progress | None = None
        self._notes: list[str] = []

    def run(self) -> Trained:
        """Trains everything, and leaves the treated weights in the model it returns.

        Raises:
            VgauditError: a method or the model fails, or the checkpoint is of another
                training.
        """
        with private_random():
            current = self._resumed()
            try:
                for plan in self._plans[len(self._state.done) :]:
                    self._train(plan, current)
                    current = None
            except Interrupted:
                return self._interrupted()
        first, *rest = self._state.done
        came = self._came if first.best == 0 else None
        model = self._model if came is None else came
        if self._state.kept and self._crew.first:
            put(model, self._state.kept)
        notes = (*self._notes, *endings(rest))
        return Trained(model=model, run=first, controls=tuple(rest), notes=notes)

    def _train(self, plan: Plan, state: Mapping[str, Any] | None) -> None:
        if self._state.done:
            done = self._control(plan, state)
        else:
            self._runner = Runner(
                self._course, plan, self._model, state=state, came=self._came
            )
            done = self._runner.run()
            if self._crew.first and (len(self._plans) > 1 or self._saves):
                self._state.kept = snapshot(self._runner.delivered)
        self._runner = None
        self._state.done.append(done)
        self._keep()

    def _control(self, plan: Plan, state: Mapping[str, Any] | None) -> Run:
        """Trains a control; whatever fails in it is told, and costs no treatment."""
        try:
            self._runner = Runner(
                self._course, plan, self._control_model(), state=state
            )
            return self._runner.run()
        except Interrupted:
            raise
        except Exception as error:
            if self._crew.size > 1 and not isinstance(error.__cause__, Diverged):
                # The other ranks are in the middle of a step, and would wait.
                raise
            begun = self._runner.record() if self._runner is not None else None
            run = failed(plan.name, error, begun)
            self.say(f"the control {run.name} failed: {run.failed}")
            return run

    def _keep(self) -> None:
        """Saves between two runs: what follows may fail, and costs none of them."""
        try:
            self._save()
        except CannotWrite as error:
            self._notes.append(f"{error.message}; the training went on without it")

    def _control_model(self) -> nn.Module:
        assert self._untrained is not None
        return placed(copied(self._untrained)[0], self._plans[0].options, self._course)

    def step(self, progress: Progress) -> None:
        """Saves where it is time to, and ends the training where that was asked for.

        Raises:
            Interrupted: after a last checkpoint.
        """
        around, self._at = self._around, progress
        due = self._crew.first and time.monotonic() - self._saved >= around.every
        asked, waited = self._crew.sums(float(around.stop()), float(due))
        stop = asked > 0
        if stop or waited > 0:
            self._save()
        if stop:
            raise Interrupted
        around.report(progress)

    def say(self, sentence: str) -> None:
        """Passes a sentence on."""
        self._around.say(sentence)

    def _save(self) -> None:
        if self._saves:
            current = None if self._runner is None else self._runner.state_dict()
            if self._around.folder is not None:
                self._around.folder.save(
                    {
                        "identity": self._state.identity,
                        "done": [dataclasses.asdict(run) for run in self._state.done],
                        "kept": self._state.kept,
                        "current": current,
                    }
                )
        self._saved = time.monotonic()

    def _resumed(self) -> Mapping[str, Any] | None:
        """Returns the state of the run to continue, None at the beginning.

        Raises:
            CannotLoad: all checkpoints are damaged.
            BadConfig: it is of another training.
        """
        state = self._crew.from_first(self._read())
        if state is None:
            return None
        self._state.done = [_run_of(values) for values in state["done"]]
        self._state.kept = state["kept"]
        current: Mapping[str, Any] | None = state["current"]
        return current

    def _read(self) -> dict[str, Any] | None:
        """Returns the checkpoint to continue from; None without one."""
        folder = self._around.folder
        if folder is None or not self._around.resume:
            return None
        if not folder.holds_checkpoint():
            self._notes.append("there was no checkpoint to resume: begun anew")
            return None
        state, note = folder.load()
        found = differences(state["identity"], self._state.identity)
        if found:
            raise BadConfig(
                f"the checkpoint is of another training: {'; '.join(found)}",
                hint=f"resume with the command that began it; {ANEW}",
            )
        self._notes += [note] if note else []
        return state

    def _interrupted(self) -> Trained:
        assert self._runner is not None
        runs = [*self._state.done, self._runner.record()]
        return Trained(
            model=self._model,
            run=runs[0],
            controls=tuple(runs[1:]),
            interrupted=True,
            at=self._at,
            notes=tuple(self._notes),
        )


def placed(model: nn.Module, options: RetrainOptions, course: Course) -> nn.Module:
    """Returns a model where its training begins: on the device, unless it is spread.

    A model that is spread over processes may be too large for the device of one.
    """
    return model if options.parallel == "fsdp" else model.to(course.device)


def _plans(options: RetrainOptions, model: nn.Module) -> tuple[Plan, ...]:
    """Returns the treatment and its controls; all take as many epochs."""
    entry = methods.entry(options)
    epochs = options.epochs or entry.epochs(model, options)
    options = dataclasses.replace(options, epochs=epochs)
    plans = [Plan(name=options.method, entry=entry, options=options)]
    for text in dict.fromkeys((*options.controls, *entry.controls)):
        own = methods.control(text, options)
        plans.append(Plan(name=text, entry=methods.entry(own), options=own))
    return tuple(plans)


def _run_of(values: Mapping[str, Any]) -> Run:
    epochs = tuple(epoch_of(epoch) for epoch in values["epochs"])
    found = {"epochs": epochs, "notes": tuple(values["notes"])}
    return Run(**{**values, **found, "converted": converted_of(values)})
