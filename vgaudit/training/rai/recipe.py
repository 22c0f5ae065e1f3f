"""The full-batch recipe from start to end: RAI, re-alignment, readout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRewrite
from vgaudit.training.rai.align import align, refusal
from vgaudit.training.rai.chain import Chain, read_form
from vgaudit.training.rai.cuts import Cuts, Place, find_cuts
from vgaudit.training.rai.gap import Gap, measure_gap
from vgaudit.training.rai.gate import Gate, steps_for
from vgaudit.training.rai.readout import PENALTY, refit_readout
from vgaudit.training.rai.reference import FullBatch, Reference
from vgaudit.training.rai.relaxed import Hidden, Relaxation, calibrate

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_TIE = 1e-3
"""Difference of losses that decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides how full-batch RAI runs.

    Attributes:
        steps: of RAI; None takes as many as the signal needs to arrive, and ten.
        place: where the cuts are.
        gate: when a stage moves.
        hidden: the hidden loss.
        ridge: strength of the re-alignment: 1e-5 suits sigmoid, 1e-3 tanh, 0.1
            ReLU. None tries each of ``RIDGES`` and keeps the best.
        penalty: of the readout's refit.
    """

    steps: int | None = None
    place: Place = "pre"
    gate: Gate = field(default_factory=Gate)
    hidden: Hidden = field(default_factory=Hidden)
    ridge: float | None = None
    penalty: float = PENALTY


@dataclass(frozen=True, slots=True)
class Outcome:
    """What full-batch RAI came to.

    Attributes:
        steps: of RAI that were taken.
        noise: share of residuals that were not zero at the start.
        before, after: the gap before and after the re-alignment.
        ridge: strength of the re-alignment.
        targets: for each cut.
    """

    steps: int
    noise: float
    before: Gap
    after: Gap
    ridge: float
    targets: list[Tensor]


def train_full_batch(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    recipe: Recipe | None = None,
    *,
    judge: Callable[[], float] | None = None,
) -> Outcome:
    """Trains a model by RAI on one batch of all samples, in place.

    Args:
        model: trained in place; stays the ordinary model.
        batch: every training sample.
        loss: mean over samples.
        recipe: how.
        judge: loss of the model as it is on samples that are not trained on; chooses
            the ridge. None takes the loss on the batch.

    Raises:
        CannotRewrite: the model cannot be cut or aligned; nothing was trained.
        CannotRun: the model fails on the batch.
    """
    recipe = recipe or Recipe()
    cuts = find_cuts(model, batch, place=recipe.place)
    calibrate(model, batch)
    require_alignment(model, cuts, batch)
    relaxation = Relaxation(model, cuts, loss, hidden=recipe.hidden)
    run = open_run(relaxation, batch, recipe)
    steps = steps_for(len(cuts)) if recipe.steps is None else recipe.steps
    for _ in range(steps):
        run.step()
    run.write()
    before = measure_gap(relaxation, batch, run.targets())
    ridge = finish_best(relaxation, batch, run.targets(), recipe, judge=judge)
    after = measure_gap(relaxation, batch, run.targets())
    return Outcome(steps, run.noise, before, after, ridge, run.targets())


def open_run(relaxation: Relaxation, batch: Batch, recipe: Recipe) -> FullBatch:
    """Returns a RAI run that has taken no step, in the fastest form that fits."""
    form = read_form(relaxation, batch) if recipe.gate.closed else None
    if form is not None:
        return Chain(form, relaxation, batch, recipe.gate)
    return Reference(relaxation, batch, recipe.gate)


def finish_best(
    relaxation: Relaxation,
    batch: Batch,
    targets: list[Tensor],
    recipe: Recipe,
    *,
    judge: Callable[[], float] | None = None,
) -> float:
    """Aligns the network to its targets and refits the readout, in place.

    Args:
        relaxation: of the model.
        batch: the samples of the targets.
        targets: for each cut.
        recipe: its ridge, or None to choose among ``RIDGES``.
        judge: loss by which to choose; None takes that of the batch.

    Returns:
        the strength of the ridge.
    """
    model, cuts = relaxation.model, relaxation.cuts
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: dict[float, tuple[float, dict[str, Tensor]]] = {}
    for ridge in RIDGES if recipe.ridge is None else (recipe.ridge,):
        _put(model, start)
        align(model, cuts, batch, targets, strength=ridge)
        trained = refit_readout(
            model, cuts, relaxation.loss, batch, penalty=recipe.penalty
        )
        loss = trained if judge is None else judge()
        after = {name: p.detach().clone() for name, p in model.named_parameters()}
        found[ridge] = (loss if math.isfinite(loss) else math.inf, after)
    least = min(loss for loss, _ in found.values())
    # Of fits that are as good, the one with the smallest weights.
    best = max(ridge for ridge, (loss, _) in found.items() if loss <= least + _TIE)
    _put(model, found[best][1])
    return best


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])


def require_alignment(model: nn.Module, cuts: Cuts, batch: Batch) -> None:
    """Makes sure that the end of the recipe will be possible.

    Raises:
        CannotRewrite: it will not.
    """
    hint = "use --setting mode=sweep, which needs neither"
    if reason := refusal(model, cuts, batch):
        raise CannotRewrite(reason, hint=hint)
    if cuts.readout is None:
        raise CannotRewrite(
            "the model does not end in one linear layer with weights of its own, and "
            "without a refit of that the recipe does not work",
            hint=hint,
        )
