"""The steps of one run: a batch is drawn, shared, computed in parts, or left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import torch

from vgaudit.data.batch import Batch
from vgaudit.data.losses import counted
from vgaudit.errors import CannotRun
from vgaudit.probe.forward import is_out_of_memory
from vgaudit.probe.tensors import cast
from vgaudit.training.course import WAY_OUT, Course, Diverged, Plan
from vgaudit.training.crew import Part
from vgaudit.training.method import Method, StepOutcome
from vgaudit.training.split import Drawn
from vgaudit.training.standing import Standing
from vgaudit.training.trainee import Trainee


class Stepper:
    """Takes the steps of a run; the crew takes each together.

    Args:
        course: the data, and who trains.
        plan: the method.
        standing: the counters, which every step changes.
        note: tells the user one sentence.
    """

    def __init__(
        self,
        course: Course,
        plan: Plan,
        *,
        standing: Standing,
        note: Callable[[str], None],
    ) -> None:
        self._course, self._plan = course, plan
        self._standing, self._note = standing, note
        self._whole: Batch | None = None
        self._is_whole = plan.entry.whole(plan.options)

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch."""
        return 1 if self._is_whole else self._course.feed.steps

    def example(self, device: torch.device) -> Batch:
        """Returns a batch to look at a model with, the same on all ranks.

        Args:
            device: where that model is.

        Raises:
            CannotRun: no batch is usable.
        """
        if self._is_whole:
            return self._everything()
        feed = self._course.feed
        part, order = Part(0, self._course.crew.size), feed.order(1)
        drawn = (feed.step(1, n, order, part=part) for n in range(feed.steps))
        first = next((d.batch for d in drawn if d.batch and not d.defect), None)
        if first is None:
            raise CannotRun("every batch holds NaN or infinity", hint=WAY_OUT)
        return moved(first, device)

    def epoch(self, method: Method, trainee: Trainee) -> Iterator[None]:
        """Takes the steps that are left of the present epoch, one after the other.

        Raises:
            CannotRun: the model or the method fails.
            Diverged: too many in a row could not be taken.
        """
        feed, standing = self._course.feed, self._standing
        order = feed.order(standing.epoch)
        trainee.model.train()
        while standing.position < self.steps:
            if self._is_whole:
                rows = torch.arange(len(feed.train_rows))
                drawn = Drawn(self._everything(), rows, "")
            else:
                part = self._course.crew.part
                drawn = feed.step(standing.epoch, standing.position, order, part=part)
            self._step(drawn, method, trainee)
            standing.position += 1
            yield

    def _step(self, drawn: Drawn, method: Method, trainee: Trainee) -> None:
        crew = self._course.crew
        own = 0.0
        if drawn.batch is not None and drawn.counts:
            own = counted(self._course.loss, drawn.batch)
        samples, counts, bad = crew.sums(drawn.samples, own, bool(drawn.reason))
        if bad or drawn.batch is None:
            reasons = crew.all_of(drawn.reason)
            self._skip(next(reason for reason in reasons if reason))
            return
        if not counts:
            self._skip("the loss leaves out every label of the batch")
            return
        device = self._course.device
        batch = drawn.batch if self._is_whole else moved(drawn.batch, device)
        step = partial(
            method.step, batch, rows=drawn.rows, weight=own * crew.size / counts
        )
        outcome = self._attempt(
            batch, step, lambda: trainee.even(self._standing.parts, int(samples))
        )
        if outcome.skipped:
            self._skip(outcome.skipped)
        else:
            self._standing.take(outcome.loss, counts)

    def _attempt(
        self, batch: Batch, step: Callable[..., StepOutcome], parts: Callable[[], int]
    ) -> StepOutcome:
        """Takes a step, in smaller parts as long as memory runs out."""
        while True:
            try:
                return step(parts=parts())
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._make_room(batch, error)

    def _make_room(self, batch: Batch, error: Exception) -> None:
        """Lets the step be computed in more parts.

        Raises:
            CannotRun: there are no more, or other ranks are in the middle of the step.
        """
        standing, crew = self._standing, self._course.crew
        if standing.parts >= batch.size:
            raise CannotRun(
                "out of memory with one sample at a time",
                hint="a smaller model or input, --device cpu, or --amp bf16",
            ) from error
        more = min(2 * standing.parts, batch.size)
        if crew.size > 1:
            raise CannotRun(
                f"out of memory with {batch.size} samples in {standing.parts} parts",
                hint=f"--accumulate {more} leaves the steps as they are",
            ) from error
        if self._course.device.type == "cuda":
            torch.cuda.empty_cache()
        standing.parts = more
        self._note(
            f"out of memory: batches of {batch.size} are computed in "
            f"{standing.parts} parts; the steps are those of whole batches"
        )

    def _skip(self, defect: str) -> None:
        standing = self._standing
        standing.skip(defect)
        if standing.in_row >= self._plan.options.most_skipped:
            raise Diverged(
                f"{standing.in_row} steps in a row could not be taken; the last: "
                f"{defect}"
            )

    def _everything(self) -> Batch:
        if self._whole is None:
            drawn = self._course.feed.everything()
            if drawn.batch is None or drawn.defect:
                raise CannotRun(
                    f"the training samples cannot be used at once: {drawn.defect}",
                    hint="remove the samples with NaN or infinity",
                )
            self._whole = moved(drawn.batch, self._course.device)
        return self._whole


def moved(batch: Batch, device: torch.device) -> Batch:
    """Returns a batch on a device."""
    given = (batch.args, batch.kwargs, batch.labels)
    args, kwargs, labels = cast(given, device=device, dtype=None)
    return dataclasses.replace(batch, args=args, kwargs=kwargs, labels=labels)
