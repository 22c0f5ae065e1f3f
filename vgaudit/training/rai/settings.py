"""What ``--setting`` knows of RAI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgaudit.retraining import RetrainOptions
from vgaudit.training.rai.cuts import Place
from vgaudit.training.rai.gate import RATE, Gate
from vgaudit.training.rai.readout import PENALTY
from vgaudit.training.rai.recipe import Recipe
from vgaudit.training.rai.relaxed import Hidden, HiddenKind, Reduction
from vgaudit.training.rai.sweep import Per
from vgaudit.training.settings import check_positive, read_settings

Mode = Literal["sweep", "table", "infer", "reference"]


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

    Raises:
        BadConfig: a number out of its range.
    """

    mode: Mode = "sweep"
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

    def __post_init__(self) -> None:
        check_positive(self, ("weight", "rate", "steps"), method="rai")
        check_positive(self, ("inner", "ridge", "penalty"), method="rai", zero=True)

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
