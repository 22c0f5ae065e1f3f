"""The full-batch recipe from start to end: RAI, re-alignment, readout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRewrite
from vgaudit.training.rai.align import align, refusal
from vgaudit.training.rai.chain import Chain, read_form
from vgaudit.training.rai.cuts import Cuts, find_cuts
from vgaudit.training.rai.gap import Gap, measure_gap
from vgaudit.training.rai.readout import PENALTY, refit_readout
from vgaudit.training.rai.reference import RATE, FullBatch, Reference, steps_for
from vgaudit.training.rai.relaxed import Hidden, Relaxation, calibrate


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides how full-batch RAI runs.

    Attributes:
        steps: of RAI; None takes as many as the signal needs to arrive, and ten.
        rate: first step of Rprop.
        gated: hold each stage until the label signal has come to it.
        hidden: the hidden loss.
        ridge: strength of the re-alignment: 1e-5 suits sigmoid, 1e-3 tanh, 0.1
            ReLU. None leaves the network as RAI left it.
        penalty: of the readout's refit.
    """

    steps: int | None = None
    rate: float = RATE
    gated: bool = True
    hidden: Hidden = Hidden()
    ridge: float | None = 1e-5
    penalty: float = PENALTY


@dataclass(frozen=True, slots=True)
class Outcome:
    """What full-batch RAI came to.

    Attributes:
        steps: of RAI that were taken.
        noise: share of residuals that were not zero at the start.
        before, after: the gap before and after the re-alignment.
        targets: for each cut.
    """

    steps: int
    noise: float
    before: Gap
    after: Gap
    targets: list[Tensor]


def train_full_batch(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    recipe: Recipe | None = None,
    *,
    cuts: Cuts | None = None,
) -> Outcome:
    """Trains a model by RAI on one batch of all samples, in place.

    Args:
        model: trained in place; stays the ordinary model.
        batch: every training sample.
        loss: mean over samples.
        recipe: how.
        cuts: where, if not where ``find_cuts`` says.

    Raises:
        CannotRewrite: the model cannot be cut or aligned; nothing was trained.
        CannotRun: the model fails on the batch.
    """
    recipe = recipe or Recipe()
    cuts = cuts or find_cuts(model, batch)
    calibrate(model, batch)
    if recipe.ridge is not None:
        require_alignment(model, cuts, batch)
    relaxation = Relaxation(model, cuts, loss, hidden=recipe.hidden)
    run = open_run(relaxation, batch, recipe)
    steps = steps_for(len(cuts)) if recipe.steps is None else recipe.steps
    for _ in range(steps):
        run.step()
    run.write()
    before = measure_gap(relaxation, batch, run.targets())
    finish(relaxation, batch, run.targets(), recipe)
    after = measure_gap(relaxation, batch, run.targets())
    return Outcome(steps, run.noise, before, after, run.targets())


def open_run(relaxation: Relaxation, batch: Batch, recipe: Recipe) -> FullBatch:
    """Returns a RAI run that has taken no step, in the fastest form that fits."""
    form = read_form(relaxation, batch) if recipe.gated else None
    if form is not None:
        return Chain(form, relaxation, batch, rate=recipe.rate)
    return Reference(relaxation, batch, rate=recipe.rate, gated=recipe.gated)


def finish(
    relaxation: Relaxation, batch: Batch, targets: list[Tensor], recipe: Recipe
) -> None:
    """Aligns the network to its targets and refits the readout, in place."""
    if recipe.ridge is None:
        return
    model, cuts = relaxation.model, relaxation.cuts
    align(model, cuts, batch, targets, strength=recipe.ridge)
    refit_readout(model, cuts, relaxation.loss, batch, penalty=recipe.penalty)


def require_alignment(model: nn.Module, cuts: Cuts, batch: Batch) -> None:
    """Makes sure that the end of the recipe will be possible.

    Raises:
        CannotRewrite: it will not.
    """
    hint = "use --set mode=sweep, which needs neither"
    if reason := refusal(model, cuts, batch):
        raise CannotRewrite(reason, hint=hint)
    if cuts.readout is None:
        raise CannotRewrite(
            "the model does not end in one linear layer with weights of its own, and "
            "without a refit of that the recipe does not work",
            hint=hint,
        )
