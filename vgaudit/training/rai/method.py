"""RAI as a method of the training loop: ``vgaudit retrain MODEL --with rai``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig
from vgaudit.retraining import RetrainOptions
from vgaudit.training.gradient import GradientTraining
from vgaudit.training.method import Entry, Method, Setup, StepOutcome
from vgaudit.training.rai.cuts import Cuts, find_cuts
from vgaudit.training.rai.gap import forward_loss, measure_gap
from vgaudit.training.rai.gate import AFTER_ARRIVAL, steps_for
from vgaudit.training.rai.recipe import finish_best, open_run, require_alignment
from vgaudit.training.rai.relaxed import Relaxation, calibrate
from vgaudit.training.rai.settings import RaiSettings, settings
from vgaudit.training.rai.sweep import Sweep
from vgaudit.training.rai.targets import InferenceTraining, TableTraining

SGD_LR, ADAM_LR = 0.1, 1e-3


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
        return TableTraining(setup, optimizer, relaxation, own)
    return InferenceTraining(setup, optimizer, relaxation, own)


def _tell(setup: Setup, cuts: Cuts) -> None:
    places = "1 place" if len(cuts) == 1 else f"{len(cuts)} places"
    setup.say(
        f"RAI cuts the model at {places} between its {cuts.weight_layers} "
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
        """Takes one step of RAI; after the recipe's last, none.

        The loss is that of the ordinary forward pass; ``figures`` has the relaxed.
        """
        del batch, rows, parts, weight
        loss = forward_loss(self._relaxation, self._setup.example)
        if self._run.done < self._steps:
            self._run.step()
            self._run.write()
        return StepOutcome(loss=loss)

    @property
    def lr(self) -> float | None:
        """The first step of Rprop; later ones are each element's own."""
        return self._recipe.gate.rate

    def figures(self) -> dict[str, float]:
        """Returns the relaxation gap, without which no relaxed loss is shown."""
        batch, targets = self._setup.example, self._run.targets()
        gap = measure_gap(self._relaxation, batch, targets)
        return {**gap.figures, "noise at the start": self._run.noise}

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
    check=settings,
)
