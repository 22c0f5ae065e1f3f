"""What a training run is asked and what it did: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["sdagd", "rai", "adact", "adam", "adamw", "sgd"]
METHODS: tuple[Method, ...] = ("sdagd", "rai", "adact", "adam", "adamw", "sgd")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGradient:
    """The gradient of one layer's weight over one epoch.

    Attributes:
        layer: path of the layer.
        rms: root mean square of the gradient's elements, mean over the measured
            steps (absolute).
        relative: decades of ``rms`` over the median of all layers in this epoch;
            None where the gradient is exactly zero.
        to_weight: gradient over weight, as root mean squares; None at 0/0.
    """

    layer: str
    rms: float
    relative: float | None
    to_weight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        number: from 1; 0 is the model before training.
        steps: optimizer steps taken so far, all epochs together.
        train_loss: mean over the epoch; None for epoch 0.
        valid_loss: on the validation split; None without one.
        metric: of the validation split, see ``Retraining.metric``.
        lr: learning rate of the first parameter group at the end of the epoch.
        seconds: wall-clock time of the epoch.
        skipped: steps left out because loss or gradient was not finite.
        attenuation: trunk attenuation in decades, measured at the end of the epoch.
        layers: the recorded flow, nearest the input first.
        figures: what the method reports of itself (phase shares of SDAGD,
            relaxation gap of RAI, learning factor of MOLF).
    """

    number: int
    steps: int
    train_loss: float | None
    valid_loss: float | None
    metric: float | None
    lr: float | None
    seconds: float
    skipped: int = 0
    attenuation: float | None = None
    layers: tuple[LayerGradient, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: the treatment, or a control beside it.

    Attributes:
        name: ``sdagd``, or ``readout only`` for a control.
        epochs: in order, epoch 0 first.
        best: number of the epoch whose weights were kept.
        stopped: why it ended before the last epoch, or empty.
        notes: statements for the user.
    """

    name: str
    epochs: tuple[Epoch, ...]
    best: int
    stopped: str = ""
    notes: tuple[str, ...] = ()
