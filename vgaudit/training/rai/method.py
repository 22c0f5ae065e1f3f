"""RAI as a method of the training loop: ``vgaudit retrain MODEL --with rai``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig
from vgaudit.retraining import RetrainOptions
from vgaudit.training.gradient import GradientTraining, split
from vgaudit.training.method import Entry, Method, Setup, StepOutcome
from vgaudit.training.rai.cuts import Cuts, Place, find_cuts
from vgaudit.training.rai.gap import measure_gap
from vgaudit.training.rai.gate import AFTER_ARRIVAL, RATE, Gate, steps_for
from vgaudit.training.rai.minibatch import Inference, TargetTable
from vgaudit.training.rai.readout import PENALTY
from vgaudit.training.rai.recipe import (
    Recipe,
    finish_best,
    open_run,
    require_alignment,
)
from vgaudit.training.rai.relaxed import (
    Hidden,
    HiddenKind,
    Reduction,
    Relaxation,
    calibrate,
)
from vgaudit.training.rai.sweep import Per, Sweep
from vgaudit.training.settings import read_settings

SGD_LR, ADAM_LR = 0.1, 1e-3


@dataclass(frozen=True, slots=True)
class RaiSettings:
    """What ``--setting`` knows of RAI.

    Attributes:
        mode: mini-batches by ``sweep``, stored targets (``table``) or inner steps
            (``infer``); or all samples at once (``reference``).
        optimizer: of the weights, in mini-batches.
        scale, per: of ``sweep``, see ``Sweep``.
        place: where the cuts are.
        hidden, reduction, weight: the hidden loss.
        rate: first step of the targets. inner: steps of ``infer``.
        steps, gate, window: of ``reference``, see ``Recipe`` and ``Gate``.
        ridge: of the alignment; None tries several and takes the best.
        penalty: of the readout's refit.
    """

    mode: Literal["sweep", "table", "infer", "reference"] = "sweep"
    optimizer: Literal["sgd", "adam"] = "sgd"
    scale: float | None = None
    per: Per = "tensor"
    place: Place = "pre"
    hidden: HiddenKind = "mse"
    reduction: Reduction = "mean"
    weight: float = 1.0
    rate: float = RATE
    inner: int | None = None
    steps: int | None = None
    gate: bool = True
    window: int | None = 20
    ridge: float | None = None
    penalty: float = PENALTY

    @property
    def hidden_loss(self) -> Hidden:
        """The hidden loss that the settings name."""
        return Hidden(kind=self.hidden, reduction=self.reduction, weight=self.weight)

    @property
    def recipe(self) -> Recipe:
        """The full-batch recipe that the settings name."""
        return Recipe(
            steps=self.steps,
            gate=Gate(
                rate=self.rate,
                closed=self.gate,
                window=self.window if self.gate else None,
            ),
            hidden=self.hidden_loss,
            ridge=self.ridge,
            penalty=self.penalty,
        )


def settings(options: RetrainOptions) -> RaiSettings:
    """Returns the settings of RAI.

    Raises:
        BadConfig: an unknown name or a wrong value.
    """
    return read_settings(RaiSettings, options.settings, method="rai")


def build(setup: Setup) -> Method:
    """Returns the mode that the settings name.

    Raises:
        BadConfig: settings that cannot be, or mixed precision with stored targets.
        CannotRewrite: the model cannot be cut, with the reason.
    """
    own = settings(setup.options)
    cuts = find_cuts(setup.plain, setup.example, place=own.place)
    _tell(setup, cuts)
    if own.mode == "reference":
        return FullBatchTraining(setup, cuts, own)
    if setup.options.amp != "off" and (own.mode != "sweep" or own.scale is not None):
        raise BadConfig(
            f"--amp {setup.options.amp} does not go with mode={own.mode}"
            + ("" if own.mode != "sweep" else " and a scale of its own"),
            hint="leave --amp off",
        )
    optimizer = _optimizer(setup, own)
    if own.mode == "sweep":
        return SweepTraining(setup, optimizer, cuts, own)
    relaxation = Relaxation(setup.model, cuts, setup.loss, hidden=own.hidden_loss)
    if own.mode == "table":
        table = TargetTable(relaxation, setup.example, rate=own.rate)
        return TableTraining(setup, optimizer, table)
    inference = Inference(relaxation, setup.example, steps=own.inner, rate=own.rate)
    return InferenceTraining(setup, optimizer, inference)


def _tell(setup: Setup, cuts: Cuts) -> None:
    setup.say(
        f"RAI cuts the model at {len(cuts)} places between its {cuts.weight_layers} "
        f"weight layers: from '{cuts.spots[0].name}' to '{cuts.spots[-1].name}'"
    )


def _optimizer(setup: Setup, own: RaiSettings) -> Optimizer:
    options, params = setup.options, list(setup.model.parameters())
    if own.optimizer == "adam":
        rate = ADAM_LR if options.lr is None else options.lr
        return Adam(params, lr=rate, weight_decay=options.weight_decay)
    return SGD(
        params,
        lr=SGD_LR if options.lr is None else options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )


class SweepTraining(GradientTraining):
    """Mini-batches with the gradient renormalised at every cut."""

    def __init__(
        self, setup: Setup, optimizer: Optimizer, cuts: Cuts, own: RaiSettings
    ) -> None:
        super().__init__(setup, optimizer)
        self._say, self._crew = setup.say, setup.crew.beside()
        self._counts = True
        self._sweep = Sweep(
            cuts,
            scale=own.scale,
            per=own.per,
            joint=self._joint,
            ranks=self._crew.size,
        )

    def _joint(self, size: Tensor, count: int) -> Tensor:
        """Returns the root mean square at a cut over the whole batch of all ranks."""
        if self._crew.group is None:
            return size
        count = count if self._counts else 0
        square = float(size.double().square()) * count
        total, values = self._crew.sums(square, float(count))
        return size.new_tensor((total / values) ** 0.5)

    def _backward(self, batch: Batch, parts: int, weight: float) -> float:
        self._counts = weight > 0
        if parts > 1:
            self._say(
                "the gradient is renormalised in each part of a batch by itself: with "
                "parts the steps are nearly, not exactly, those of whole batches"
            )
        return super()._backward(batch, parts, weight)

    def _forward(self, part: Batch) -> Any:
        with self._sweep.cutting():
            return super()._forward(part)


class TableTraining(GradientTraining):
    """Mini-batches with a stored target for every sample and cut."""

    def __init__(self, setup: Setup, optimizer: Optimizer, table: TargetTable) -> None:
        super().__init__(setup, optimizer, figures=self._memory)
        self._table = table
        self._rows: Tensor | None = None

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Moves the targets of the batch, then takes one optimizer step."""
        before = self._table.state_of(rows)
        self._rows = rows
        try:
            outcome = super().step(batch, rows=rows, parts=parts, weight=weight)
        except BaseException:
            self._table.put_back(rows, before)
            raise
        if outcome.skipped:
            self._table.put_back(rows, before)
        return outcome

    def _backward(self, batch: Batch, parts: int, weight: float) -> float:
        assert self._rows is not None
        total, start = 0.0, 0
        for part in split(batch, parts):
            rows = self._rows[start : start + part.size]
            share = weight * part.size / batch.size
            total += share * float(self._table.backward(part, rows, share=share))
            start += part.size
        return total

    def _memory(self) -> dict[str, float]:
        return {"target table, MB": self._table.bytes / 1e6}

    def state_dict(self) -> dict[str, Any]:
        """Returns the optimizer's state and the table."""
        return {**super().state_dict(), "table": self._table.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        super().load_state_dict(state)
        self._table.load_state_dict(state["table"])


class InferenceTraining(GradientTraining):
    """Mini-batches with targets that are found anew for each."""

    def __init__(
        self, setup: Setup, optimizer: Optimizer, inference: Inference
    ) -> None:
        super().__init__(setup, optimizer)
        self._inference = inference

    def _backward(self, batch: Batch, parts: int, weight: float) -> float:
        total = 0.0
        for part in split(batch, parts):
            share = weight * part.size / batch.size
            total += share * float(self._inference.backward(part, share=share))
        return total


class FullBatchTraining:
    """The recipe on all samples: one step of RAI in each epoch, alignment at the end.

    Args:
        setup: what to train.
        cuts: of the model.
        own: settings.

    Raises:
        CannotRewrite: the model cannot be aligned, with the reason.
    """

    def __init__(self, setup: Setup, cuts: Cuts, own: RaiSettings) -> None:
        self._setup, self._recipe = setup, own.recipe
        calibrate(setup.model, setup.example)
        require_alignment(setup.model, cuts, setup.example)
        self._relaxation = Relaxation(
            setup.model, cuts, setup.loss, hidden=own.hidden_loss
        )
        self._run = open_run(self._relaxation, setup.example, self._recipe)
        self._steps = steps_for(len(cuts)) if own.steps is None else own.steps
        if setup.epochs < self._steps:
            setup.say(
                f"{setup.epochs} epochs are too few: the label signal needs "
                f"{len(cuts)} steps to the first layer, and the recipe {self._steps}"
            )

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Takes one step of RAI; after the recipe's last, none."""
        del batch, rows, parts, weight
        if self._run.done >= self._steps:
            return StepOutcome(loss=self._gap().output)
        loss = self._run.step()
        self._run.write()
        return StepOutcome(loss=self._gap().output if loss != loss else loss)

    @property
    def lr(self) -> float | None:
        """The first step of Rprop; later ones are each element's own."""
        return self._recipe.gate.rate

    def figures(self) -> dict[str, float]:
        """Returns the relaxation gap, without which no relaxed loss is shown."""
        gap = self._gap()
        return {
            "relaxed loss": gap.output,
            "relaxation gap": gap.gap,
            "largest residual": gap.residual,
            "least label share": gap.label_share,
            "noise at the start": self._run.noise,
        }

    def finish(self) -> bool:
        """Aligns the network to the targets and refits the readout."""
        validate = self._setup.validate
        judge: Callable[[], float] | None = None
        if validate is not None:
            scores = validate
            judge = lambda: scores().loss  # noqa: E731
        ridge = finish_best(
            self._relaxation,
            self._setup.example,
            self._run.targets(),
            self._recipe,
            judge=judge,
        )
        self._setup.say(
            f"aligned to the targets with ridge {ridge:g}, readout refitted"
        )
        return True

    def _gap(self) -> Any:
        batch, targets = self._setup.example, self._run.targets()
        return measure_gap(self._relaxation, batch, targets)

    def state_dict(self) -> dict[str, Any]:
        """Returns targets, weights and the state of Rprop."""
        return {"run": self._run.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        self._run.load_state_dict(state["run"])


def _is_whole(options: RetrainOptions) -> bool:
    return settings(options).mode == "reference"


def _alone(options: RetrainOptions) -> str:
    """Returns why several processes cannot train so together, or nothing."""
    own = settings(options)
    if own.mode == "sweep":
        return ""
    return (
        f"mode={own.mode} keeps targets for each sample in one process; "
        "--setting mode=sweep trains in mini-batches that ranks can share"
    )


def _epochs(model: nn.Module, options: RetrainOptions) -> int:
    """Returns enough epochs for the label signal to arrive, or the usual ten."""
    own = settings(options)
    if own.mode != "reference":
        return 10
    if own.steps is not None:
        return own.steps
    # A weight for each cut and one for the output; steps left over do nothing.
    weights = sum(parameter.dim() > 1 for parameter in model.parameters())
    return max(1, weights - 1) + AFTER_ARRIVAL


ENTRY = Entry(
    build=build,
    whole=_is_whole,
    alone=_alone,
    epochs=_epochs,
    controls=("readout",),
)
