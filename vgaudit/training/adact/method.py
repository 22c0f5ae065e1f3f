"""The three steps as a method of training: ``adact`` by ``--solver classic``."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import mean_of, settled
from vgaudit.errors import CannotRun
from vgaudit.retraining import RetrainOptions
from vgaudit.training.adact.matching import features, linear_layers, parts_of
from vgaudit.training.adact.patterns import Patterns
from vgaudit.training.adact.solver import Iteration, Plan, ThreeSteps
from vgaudit.training.gradient import weighed
from vgaudit.training.method import Entry, Prepared, Setup, StepOutcome
from vgaudit.training.methods import with_activations
from vgaudit.training.settings import read_settings

TURNS = 30
ROWS = 8192


@dataclass(frozen=True, slots=True)
class ClassicSettings:
    """Of the classic solver.

    Attributes:
        adapt: train the values of the activation; without it MOLF and OWO alone.
        guard: take no step that raises the squared error.
    """

    adapt: bool = True
    guard: bool = True


class Classic:
    """One turn of the three steps on all samples is one epoch.

    The network is kept in float64; the model gets it rounded to its own type.
    """

    def __init__(self, setup: Setup) -> None:
        own = settings(setup.options)
        self._setup = setup
        self._plan = Plan(adapt=own.adapt, guard=own.guard)
        self._parts = parts_of(setup.model, setup.example)
        self._net = self._parts.network()
        self._turns = 0
        self._last: Iteration | None = None

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Takes the three steps on all samples; see ``Method.step``.

        Raises:
            CannotRun: labels that the squared error cannot be taken of.
        """
        loss, inputs, targets = self._patterns(batch, parts)
        if not math.isfinite(loss):
            return StepOutcome(loss=loss, skipped=f"the loss is {loss}")
        data = Patterns(inputs, targets, max(1, ROWS // parts))
        net = copy.deepcopy(self._net)
        solver = ThreeSteps(net, data, self._plan)
        if not self._turns:
            solver.begin()
        self._last = solver.turn(self._turns + 1)
        self._net = net
        self._turns += 1
        self._parts.take(net)
        return StepOutcome(loss=loss)

    def _patterns(self, batch: Batch, parts: int) -> tuple[float, Tensor, Tensor]:
        """Returns the user's loss, hidden inputs and targets of all samples."""
        pieces = max(parts, math.ceil(batch.size / ROWS))
        loss, inputs, targets = 0.0, [], []
        parted, whole = weighed(self._setup.loss, batch, pieces)
        for part, count in parted:
            x, output = features(self._setup.model, self._parts, part)
            # vgaudit's losses refuse outputs that no gradient could come of.
            found = mean_of(self._setup.loss, output.requires_grad_(), part)
            loss += found.item() * count / whole
            inputs.append(x)
            targets.append(targets_of(self._setup.loss, part.labels, output.detach()))
        return loss, torch.cat(inputs), torch.cat(targets)

    @property
    def lr(self) -> float | None:
        """None: the steps have learning factors of their own."""
        return None

    def figures(self) -> dict[str, float]:
        """Returns the squared error after each step, and how they were taken."""
        last = self._last
        if last is None:
            return {}
        return {
            "squared error after MOLF": last.after_hidden,
            "squared error after AdAct": last.after_hinges,
            "squared error after OWO": last.loss,
            "learning factor of AdAct": last.factor,
            "halvings of MOLF": float(last.halvings),
        }

    def finish(self) -> bool:
        """Leaves the model as it is."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Returns the network in float64 and the number of turns."""
        return {"net": self._net.state_dict(), "turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        self._net.load_state_dict(state["net"])
        self._turns = int(state["turns"])


def targets_of(loss: Loss, labels: Any, output: Tensor) -> Tensor:
    """Returns the targets of the squared error, in the output's shape.

    Classes become one-hot, so that the largest output is the class; the 0 and 1 of
    bce-with-logits become −1 and 1, so that the sign decides; numbers stay.

    Raises:
        CannotRun: labels of another kind or shape.
    """
    name = settled(loss).name
    if isinstance(labels, Tensor):
        if name in ("cross-entropy", "nll") and not labels.is_floating_point():
            classes = output.shape[1]
            if labels.dim() == 1 and bool(((labels >= 0) & (labels < classes)).all()):
                return one_hot(labels.long(), classes).to(output)
        elif labels.numel() == output.numel():
            numbers = labels.reshape(output.shape).to(output)
            return 2 * numbers - 1 if name == "bce-with-logits" else numbers
    raise CannotRun(
        f"the classic solver needs a target for every output, and the labels of {name} "
        "are not that",
        hint="--solver gradient takes any loss",
    )


def prepare(
    model: nn.Module, batches: Sequence[Batch], options: RetrainOptions
) -> Prepared:
    """Returns a model with one trainable activation, converted where it had none.

    Raises:
        CannotRewrite: the model has not exactly one hidden layer.
    """
    linear_layers(model)
    prepared = with_activations(model, batches, options)
    parts_of(prepared.model, batches[0])
    note = (
        "the classic solver lowers the squared error to the targets (classes one-hot); "
        "the loss is reported beside it"
    )
    return Prepared(prepared.model, (*prepared.notes, note), came=prepared.came)


def turns(_model: nn.Module, _options: RetrainOptions) -> int:
    """Returns the usual number of epochs, each of them one turn of the steps."""
    return TURNS


def on_all_samples(_options: RetrainOptions) -> bool:
    """Returns True: an epoch is one step."""
    return True


def alone(_options: RetrainOptions) -> str:
    """Returns why several processes cannot train so together."""
    return (
        "--solver classic solves for all samples at once, in one process; "
        "--solver gradient trains in batches that ranks can share"
    )


def settings(options: RetrainOptions) -> ClassicSettings:
    """Returns the settings of the classic solver.

    Raises:
        BadConfig: an unknown name or a wrong value.
    """
    return read_settings(ClassicSettings, options.settings, method="adact")


ENTRY = Entry(
    build=Classic,
    whole=on_all_samples,
    alone=alone,
    epochs=turns,
    prepare=prepare,
    check=settings,
)
