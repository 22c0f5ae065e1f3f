"""Training by gradients: one optimizer step on each batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import counted, mean_of, settled
from vgaudit.errors import CannotRun, VgauditError
from vgaudit.optim.sharding import local
from vgaudit.probe.forward import failed_call, is_out_of_memory
from vgaudit.probe.tensors import map_tensors
from vgaudit.training.method import Setup, StepOutcome
from vgaudit.training.schedule import schedule
from vgaudit.training.trainee import Trainee

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Watch = Callable[[Any, str, Any, float], None]
"""Sees an output, the loss's name, the labels and the weight of the part before each
backward pass."""


class GradientTraining:
    """A method of training that takes gradients to an ordinary optimizer.

    Args:
        setup: what to train.
        optimizer: over parameters of ``setup.model``.
        watch: sees every forward pass (``SDAGD.observe``).
        forget: drops what ``watch`` saw of a step that is left out.
        figures: what to record of each epoch.
    """

    def __init__(
        self,
        setup: Setup,
        optimizer: Optimizer,
        *,
        watch: Watch | None = None,
        forget: Callable[[], None] | None = None,
        figures: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self._setup = setup
        self._trainee = setup.trainee or Trainee(setup.model)
        self._optimizer = optimizer
        options = setup.options
        self._scheduler: LambdaLR = schedule(
            options.schedule, optimizer, setup.steps, warmup=options.warmup
        )
        self._watch = watch
        self._forget = forget
        self._figures = figures
        cuda = setup.device.type == "cuda"
        self._half = HALVES.get(options.amp) if cuda else None
        # The loss scale is of use for float16 alone: bfloat16 has float32's range.
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._half is torch.float16)
        self._params = [p for group in optimizer.param_groups for p in group["params"]]
        self._buffers = list(setup.model.buffers())
        rate = optimizer.param_groups[0].get("initial_lr", 0.0)
        setup.say(f"learning rate {float(rate):.3g}, schedule {options.schedule}")

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Takes one optimizer step; see ``Method.step``.

        Raises:
            CannotRun: the model fails on the batch.
        """
        # A batch that is skipped must not leave NaN in running statistics.
        before = [buffer.clone() for buffer in self._buffers]
        self._optimizer.zero_grad(set_to_none=True)
        try:
            loss = self._backward(batch, parts, weight)
            loss, defect = self._defect(loss)
        except BaseException:
            self._put_back(before)
            raise
        if defect:
            self._put_back(before)
            self._optimizer.zero_grad(set_to_none=True)
            return StepOutcome(loss=loss, skipped=defect)
        self._setup.observe()
        clip = self._setup.options.clip
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self._params, clip)
        self._move()
        return StepOutcome(loss=loss)

    def _backward(self, batch: Batch, parts: int, weight: float) -> float:
        """Adds the gradient of the mean loss, part by part, and returns the loss."""
        total: Tensor | None = None
        pieces, whole = weighed(self._setup.loss, batch, parts)
        for number, (part, count) in enumerate(pieces, 1):
            last = number == len(pieces)
            # Also a part in which nothing counts is one operation of all ranks.
            share = weight * count / whole if count else 0.0
            with contextlib.nullcontext() if last else self._trainee.gathering():
                found = self._part(part, share, len(pieces))
            total = found if total is None else total + found
        self._scaler.unscale_(self._optimizer)
        return float("nan") if total is None else float(total)

    def _part(self, part: Batch, share: float, count: int) -> Tensor:
        """Adds the gradient of one of ``count`` parts, and returns its share of loss.

        Args:
            part: its samples.
            share: what its mean loss is multiplied by.
            count: of the parts; curvature is averaged over them.
        """
        with self._autocast():
            output = self._forward(part)
            if share:
                loss = self._setup.loss.function(output, part.labels)
            else:
                loss = mean_of(self._setup.loss, output, part)
        if share != 1.0:
            loss = loss * share
        if self._watch is not None:
            name = settled(self._setup.loss).name
            self._watch(output, name, part.labels, share * count)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach().double()

    def _forward(self, part: Batch) -> Any:
        """Returns the output of a part; RAI reaches into this pass."""
        return _call(self._trainee, part)

    def _defect(self, loss: float) -> tuple[float, str]:
        """Returns the loss of all ranks, and why no step can be taken, or nothing."""
        grads = [p.grad for p in self._params if p.grad is not None]
        if not grads:
            raise CannotRun(
                "no parameter has a gradient", hint="unfreeze a layer of the model"
            )
        crew = self._setup.crew
        loss, bad = crew.sums(loss / crew.size, float(not _finite(grads)))
        if math.isfinite(loss) and not bad:
            return loss, ""
        return loss, self._leave(loss)

    def _leave(self, loss: float) -> str:
        """Returns why a step is left out."""
        if self._half is torch.float16:
            # Without a finite gradient this only lowers the scale.
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        return "the gradient is not finite"

    def _move(self) -> None:
        try:
            self._scaler.step(self._optimizer)
        except Exception as error:
            if is_out_of_memory(error):
                raise CannotRun(
                    "out of memory in the optimizer's own state",
                    hint="smaller batches do not help here; --with sgd needs least",
                ) from error
            raise
        self._scaler.update()
        self._scheduler.step()

    def _put_back(self, before: list[Tensor]) -> None:
        """Undoes what a forward pass left, where its step is not taken."""
        if self._forget is not None:
            self._forget()
        with torch.no_grad():
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        if self._half is None:
            yield
            return
        with torch.autocast("cuda", dtype=self._half):
            yield

    @property
    def lr(self) -> float | None:
        """The learning rate of the next step, of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def figures(self) -> dict[str, float]:
        """Returns what the optimizer tells of itself."""
        return self._figures()

    def finish(self) -> bool:
        """Leaves the model as it is."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of optimizer, schedule and loss scale."""
        return {
            "optimizer": self._trainee.whole(self._optimizer.state_dict()),
            "schedule": self._scheduler.state_dict(),
            "scale": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        kept = self._trainee.spread(state["optimizer"], self._optimizer)
        self._optimizer.load_state_dict(kept)
        self._scheduler.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scale"])


def _finite(grads: Sequence[Tensor]) -> bool:
    """Tells whether no gradient here holds NaN or infinity; waits once a device."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for grad in grads:
        values = grad.coalesce().values() if grad.is_sparse else local(grad)
        if values.numel():
            kinds.setdefault((values.device, values.dtype), []).append(values)
    return all(
        bool(torch.isfinite(torch.stack(torch._foreach_norm(group, math.inf))).all())
        for group in kinds.values()
    )


def weighed(
    loss: Loss, batch: Batch, parts: int
) -> tuple[list[tuple[Batch, float]], float]:
    """Returns a batch in parts, each with what its mean loss weighs, and their sum.

    Raises:
        CannotRun: as ``split``.
    """
    pieces = list(split(batch, parts))
    counts = [counted(loss, part) for part in pieces]
    return list(zip(pieces, counts, strict=True)), sum(counts)


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yields a batch in parts of nearly the same size; never an empty one.

    Every tensor whose first extent is the number of samples is cut; everything else
    goes into each part.

    Raises:
        CannotRun: nothing in the batch has that extent.
    """
    if parts <= 1 or batch.size <= 1:
        yield batch
        return
    count = min(parts, batch.size)
    edges = [round(batch.size * place / count) for place in range(count + 1)]
    for start, end in pairwise(edges):

        def cut(tensor: Tensor, start: int = start, end: int = end) -> Tensor:
            whole = tensor.dim() > 0 and tensor.shape[0] == batch.size
            return tensor[start:end] if whole else tensor

        args, kwargs, labels = map_tensors(
            (batch.args, batch.kwargs, batch.labels), cut
        )
        yield replace(batch, args=args, kwargs=kwargs, labels=labels, size=end - start)


def _call(model: Trainee, batch: Batch) -> Any:
    try:
        return model(*batch.args, **batch.kwargs)
    except VgauditError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise failed_call(error) from error
