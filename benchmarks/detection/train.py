"""Short training runs: the only evidence that the oracle uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.detection.build import Spec, build
from benchmarks.detection.tasks import Task, loss_of, task

Kind = Literal["sgd", "adam"]
Watch = Callable[[nn.Module, Task, int], None]

BATCH = 64
EVALUATE_EVERY = 25
LEARNED = 0.3
SPIKE, BLOWN = 100.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one run is made, besides the model.

    Attributes:
        kind: SGD with momentum 0.9, or Adam.
        rate: its learning rate.
        steps: at most so many; a run that has learned stops early.
        order: seed of the order of the batches.
        frozen: names of parameters that stay as they were initialised.
        stop: stop as soon as the run has learned.
    """

    kind: Kind
    rate: float
    steps: int
    order: int = 0
    frozen: Collection[str] = ()
    stop: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run reached.

    Attributes:
        explained: 1 − loss / chance at the end, over the whole task.
        best: the highest of all evaluations.
        diverged: NaN or infinity, a loss 100 times what it started with (or
            chance), or an end above 10 times chance.
        still: names of trained parameters that are bit-equal to the start.
    """

    explained: float
    best: float
    diverged: bool
    still: tuple[str, ...]

    @property
    def learned(self) -> bool:
        """Well above chance."""
        return not self.diverged and self.best >= LEARNED


def train(spec: Spec, run: Run, watch: Watch | None = None) -> Outcome:
    """Returns what training reaches from the spec's initial weights.

    Args:
        spec: the model.
        run: how to train it.
        watch: called with the model at every evaluation, before the step.
    """
    model, data = build(spec), task(spec.task)
    data = _typed(data, spec)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in run.frozen)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = _optimizer(trained.values(), run, spec)
    generator = torch.Generator().manual_seed(run.order)
    history = [_loss(model, data)]
    diverged = not math.isfinite(history[0])
    for step, chosen in enumerate(_batches(len(data.x), run.steps, generator)):
        if watch is not None and step % EVALUATE_EVERY == 0:
            watch(model, data, step)
        optimizer.zero_grad()
        loss = loss_of(model(data.x[chosen]), data.y[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % EVALUATE_EVERY == 0:
            history.append(_loss(model, data))
            if _spiked(history, data.chance):
                diverged = True
                break
            if run.stop and history[-1] <= (1 - LEARNED) * data.chance:
                break
    diverged = diverged or history[-1] > BLOWN * data.chance
    explained = [1 - loss / data.chance for loss in history]
    return Outcome(
        explained=sum(explained[-3:]) / len(explained[-3:]),
        best=max((x for x in explained if math.isfinite(x)), default=-math.inf),
        diverged=diverged,
        still=tuple(n for n, p in trained.items() if torch.equal(p, start[n])),
    )


def _typed(data: Task, spec: Spec) -> Task:
    x = data.x.to(getattr(torch, spec.dtype))
    return Task(data.name, x, data.y, data.chance, data.outputs)


def _optimizer(
    parameters: Iterable[nn.Parameter], run: Run, spec: Spec
) -> torch.optim.Optimizer:
    fused = spec.dtype == "float32"
    if run.kind == "sgd":
        return torch.optim.SGD(parameters, lr=run.rate, momentum=0.9, fused=fused)
    # In float16 the usual 1e-8 is zero, and a zero gradient becomes NaN.
    eps = 1e-4 if spec.dtype == "float16" else 1e-8
    return torch.optim.Adam(parameters, lr=run.rate, eps=eps, fused=fused)


def _batches(samples: int, steps: int, generator: torch.Generator) -> Iterable[Tensor]:
    made = 0
    while made < steps:
        for chosen in torch.split(torch.randperm(samples, generator=generator), BATCH):
            if made == steps:
                return
            made += 1
            yield chosen


def _loss(model: nn.Module, data: Task) -> float:
    with torch.no_grad():
        return float(loss_of(model(data.x), data.y))


def _spiked(history: list[float], chance: float) -> bool:
    last = history[-1]
    return not math.isfinite(last) or last > SPIKE * max(history[0], chance)
