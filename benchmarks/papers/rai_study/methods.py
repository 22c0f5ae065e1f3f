"""The methods that stand beside each other, each trained on the same samples."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import Rprop as TorchRprop

from benchmarks.papers.rai_study.problems import Problem, score
from vgaudit.training.rai import (
    Hidden,
    Recipe,
    Relaxation,
    align,
    find_cuts,
    measure_gap,
    refit_readout,
)
from vgaudit.training.rai.gate import Gate, steps_for
from vgaudit.training.rai.recipe import open_run

Figures = dict[str, float]

# What tuning found at width 100 and noise 0.1; the grid takes its own from there.
FIRST_RIDGE = {"sigmoid": 1e-6, "tanh": 1e-4, "relu": 1e-1}
PENALTY = 1e-4
CONTROL_STEPS = 300


@dataclass(frozen=True)
class Rai:
    """Full-batch RAI with one thing or another changed."""

    recipe: Recipe
    aligned: bool = True


def rai(model: nn.Module, given: Problem, setting: Rai) -> Figures:
    """Trains the model; the figures hold the score before the alignment too."""
    recipe, batch = setting.recipe, given.train
    cuts = find_cuts(model, batch)
    relaxation = Relaxation(model, cuts, given.loss, hidden=recipe.hidden)
    run = open_run(relaxation, batch, recipe)
    steps = steps_for(len(cuts)) if recipe.steps is None else recipe.steps
    for _ in range(steps):
        run.step()
    run.write()
    targets = run.targets()
    before = measure_gap(relaxation, batch, targets)
    figures = {
        "noise": run.noise,
        "steps": float(steps),
        "unaligned": score(model, given.test, given.loss),
        "relaxed": before.output,
        "gap": before.gap,
        "residual": before.residual,
        "label_share": before.label_share,
    }
    if setting.aligned:
        assert recipe.ridge is not None
        align(model, cuts, batch, targets, strength=recipe.ridge)
        refit_readout(model, cuts, given.loss, batch, penalty=recipe.penalty)
    after = measure_gap(relaxation, batch, targets)
    return figures | {"forward": after.forward, "gap_after": after.gap}


def rai_recipe(
    ridge: float,
    *,
    window: int | None = 20,
    closed: bool = True,
    hidden: Hidden | None = None,
    steps: int | None = None,
) -> Recipe:
    return Recipe(
        steps=steps,
        gate=Gate(closed=closed, window=window if closed else None),
        hidden=hidden or Hidden(),
        ridge=ridge,
        penalty=PENALTY,
    )


def readout_only(model: nn.Module, given: Problem) -> Figures:
    """Refits the last layer of the untouched net."""
    cuts = find_cuts(model, given.train)
    loss = refit_readout(model, cuts, given.loss, given.train, penalty=PENALTY)
    return {"forward": loss}


def label_code(model: nn.Module, given: Problem, ridge: float, seed: int) -> Figures:
    """Aligns to ±0.1 × label with a random sign for each unit: no RAI at all."""
    batch = given.train
    cuts = find_cuts(model, batch)
    generator = torch.Generator().manual_seed(30_000 + seed)
    sides = 2 * batch.labels - 1
    targets = []
    for spot in cuts.spots:
        signs = torch.randint(0, 2, spot.shape, generator=generator) * 2.0 - 1
        targets.append(0.1 * sides[:, None] * signs)
    align(model, cuts, batch, targets, strength=ridge)
    loss = refit_readout(model, cuts, given.loss, batch, penalty=PENALTY)
    return {"forward": loss}


def backprop(
    model: nn.Module,
    given: Problem,
    make: Callable[[nn.Module], Optimizer],
    *,
    steps: int,
) -> Figures:
    """Full-batch backpropagation through the whole net."""
    optimizer = make(model)
    loss = torch.tensor(math.nan)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = given.loss.function(model(*given.train.args), given.train.labels)
        loss.backward()
        optimizer.step()
    return {"forward": float(loss.detach())}


def adam(rate: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: Adam(model.parameters(), lr=rate)


def sgd(rate: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: SGD(model.parameters(), lr=rate, momentum=0.9)


def rprop(rate: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: TorchRprop(model.parameters(), lr=rate)


def judged(
    model: nn.Module, given: Problem, train: Callable[[nn.Module], Figures]
) -> Figures:
    """Trains a copy, and says how good it is and what processor time it took."""
    own = copy.deepcopy(model)
    start = time.process_time()
    figures = train(own)
    seconds = time.process_time() - start
    return {
        "score": score(own, given.test, given.loss),
        "train_score": score(own, given.train, given.loss),
        "seconds": seconds,
        **figures,
    }
