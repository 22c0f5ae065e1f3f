"""What a training run is asked and what it did: plain values, no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vgaudit.flow import Audit
from vgaudit.ranks import Parallel

Method = Literal["sdagd", "rai", "adact", "adam", "adamw", "sgd"]
METHODS: tuple[Method, ...] = ("sdagd", "rai", "adact", "adam", "adamw", "sgd")
Schedule = Literal["auto", "warmup-linear", "cosine", "constant", "step"]
SCHEDULES: tuple[Schedule, ...] = (
    "auto",
    "warmup-linear",
    "cosine",
    "constant",
    "step",
)
Amp = Literal["off", "bf16", "fp16"]
AMPS: tuple[Amp, ...] = ("off", "bf16", "fp16")
Solver = Literal["gradient", "classic"]
Outcome = Literal["better", "same", "worse", ""]


def run_folder(output: str | None, given: str | None) -> Path | None:
    """Returns the folder of a training: as given, or ``OUT.run`` beside its output."""
    if given is not None:
        return Path(given)
    return None if output is None else Path(f"{Path(output)}.run")


def is_given(folder: Path) -> bool:
    """Tells whether a folder is there without anything in it: it is not ours to remove.

    What holds checkpoints is removed with them, whoever made it.
    """
    try:
        return folder.is_dir() and not any(folder.iterdir())
    except OSError:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainOptions:
    """How to train.

    Attributes:
        method: the treatment.
        solver: of ``adact``: gradients, or the closed-form steps of the paper.
        epochs: passes over the training data; None takes the method's own number.
        batch_size: samples of one optimizer step; None for 64.
        accumulate: parts in which a step's batch is computed, to save memory. The
            gradient is the same, but for what a batch normalization sees.
        lr: None takes the method's own.
        weight_decay: decoupled but for ``adam`` and ``sgd``.
        momentum: of ``sgd``.
        schedule: ``auto`` is warm-up and linear decay.
        warmup: share of all steps.
        clip: largest L2 norm of the whole gradient; None leaves it.
        amp: autocast to a half type on CUDA; fp16 with a loss scale.
        valid_split: share of the samples held out; 0 trains on all.
        valid_data: a data spec to validate on instead.
        patience: epochs without a better one after which to stop.
        controls: methods that train a copy from the same start with the same budget.
        seed: of the split, the order of the data, dropout and the methods' own.
        settings: of the method alone, ``{"kappa": 100, "centring": False}``; kept as
            text, as the command line has them.
        most_skipped: non-finite steps in a row after which training gives up.
        parallel: of several processes: ``ddp`` gives each a copy of the model,
            ``fsdp`` spreads it over them.
    """

    method: Method
    solver: Solver = "gradient"
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: Schedule = "auto"
    warmup: float = 0.05
    clip: float | None = None
    amp: Amp = "off"
    valid_split: float = 0.1
    valid_data: str | None = None
    patience: int | None = None
    controls: tuple[str, ...] = ()
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    most_skipped: int = 20
    parallel: Parallel = "ddp"

    def __post_init__(self) -> None:
        text = {str(name): str(value) for name, value in self.settings.items()}
        object.__setattr__(self, "settings", text)


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
        number: from 1; 0 is the model as it came.
        steps: optimizer steps taken so far, all epochs together.
        train_loss: mean over the epoch; None for epoch 0.
        valid_loss: on the validation split; None without one.
        metric: of the validation split, see ``Retraining.metric``.
        lr: learning rate of the first parameter group at the end of the epoch.
        seconds: wall-clock time of the epoch, with what measures it; 0 for epoch 0,
            where building the method and the first measurement load libraries.
        skipped: steps left out because loss or gradient was not finite.
        attenuation: trunk attenuation in decades, measured at the end of the epoch.
        layers: the recorded flow, nearest the input first.
        figures: what the method reports of itself (phase shares of SDAGD,
            relaxation gap of RAI, learning factor of MOLF).
        finish: no pass over the data, but what the method does after the last one
            (RAI aligns the network to its targets); numbered as the next.
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
    finish: bool = False

    @property
    def uniformity(self) -> float | None:
        """Uniformity over layers: standard deviation of log10 RMS, in decades.

        0 where all layers learn alike. Infinite where one layer has no gradient at
        all; None with fewer than two layers.
        """
        sizes = [layer.rms for layer in self.layers]
        if len(sizes) < 2 or not any(sizes):
            return None
        if not all(0.0 < size < math.inf for size in sizes):
            return math.inf
        return statistics.pstdev(map(math.log10, sizes))

    @property
    def spread(self) -> float | None:
        """Decades between the largest and the smallest gradient of a layer.

        Infinite where one layer has none at all; None with fewer than two layers.
        """
        found = [layer.relative for layer in self.layers]
        known = [value for value in found if value is not None]
        if len(found) < 2 or not known:
            return None
        return max(known) - min(known) if len(known) == len(found) else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: the treatment, or a control beside it.

    Attributes:
        name: ``sdagd``, or ``readout only`` for a control.
        epochs: in order, epoch 0 first.
        best: number of the epoch whose weights were kept.
        stopped: why it ended before the last epoch, or empty.
        notes: statements for the user.
        failed: why nothing came of a control, or empty; its epochs are then those
            before that, and tell nothing of its method.
        judged: validation samples behind the scores of the kept epoch.
        converted: the model after the conversion that the method needs and before
            training, numbered 0 too; None where nothing was converted. Epoch 0 is
            the model as it came then.
    """

    name: str
    epochs: tuple[Epoch, ...]
    best: int
    stopped: str = ""
    notes: tuple[str, ...] = ()
    failed: str = ""
    judged: int = 0
    converted: Epoch | None = None

    @property
    def kept(self) -> Epoch:
        """The epoch whose weights were kept."""
        return next(epoch for epoch in self.epochs if epoch.number == self.best)

    @property
    def passes(self) -> int:
        """Epochs of training: passes over the data, all of them or a part."""
        return sum(epoch.number > 0 and not epoch.finish for epoch in self.epochs)

    @property
    def wander(self) -> float | None:
        """Stability over epochs: how far gradients wander, in decades.

        The median over layers of the standard deviation of log10 RMS over the
        trained epochs; None with fewer than two, or where no layer has a gradient in
        all of them.
        """
        tracks: dict[str, list[float]] = {}
        trained = [epoch for epoch in self.epochs if epoch.number and epoch.layers]
        for epoch in trained:
            for layer in epoch.layers:
                if 0.0 < layer.rms < math.inf:
                    tracks.setdefault(layer.layer, []).append(math.log10(layer.rms))
        whole = [track for track in tracks.values() if len(track) == len(trained)]
        if len(trained) < 2 or not whole:
            return None
        return statistics.median(statistics.pstdev(track) for track in whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The treatment beside one control, on the same validation samples.

    Attributes:
        control: name of the control's run.
        outcome: of the treatment; ``same`` within the uncertainty; empty where
            there is nothing to compare.
        difference: treatment minus control, in units of the metric (of the
            validation loss where there is none, then lower is better).
        uncertainty: 95 % half width of ``difference`` from the number of samples;
            None where it is not known.
        samples: that the uncertainty follows from.
    """

    control: str
    outcome: Outcome
    difference: float | None
    uncertainty: float | None
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which samples were trained on.

    Attributes:
        train, valid: number of samples.
        how: one sentence: ``10 % of them, held out by seed 0``.
    """

    train: int
    valid: int
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training run is: what the command line shows while it waits.

    Attributes:
        run: name of the run.
        epoch, epochs: the current epoch, from 1, and how many there will be.
        finished: epochs that are validated and recorded.
        step, steps: optimizer steps done and in all.
        loss: mean over the epoch so far.
        metric: of the last validation, and ``measure`` its name.
        attenuation: in decades, after the last epoch.
        eta: seconds left, None while unknown.
    """

    run: str
    epoch: int
    epochs: int
    finished: int
    step: int
    steps: int
    measure: str = ""
    loss: float | None = None
    metric: float | None = None
    attenuation: float | None = None
    eta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """A training with its proof.

    Attributes:
        options: what was asked.
        metric: ``accuracy``, ``R²``, or empty where only the loss is known.
        loss: name of the loss.
        split: which samples were trained on, and which only looked at.
        run: the treatment.
        controls: what trained beside it, from the same start.
        against: the treatment compared with each control.
        before, after: the same scan of the model as it came and as it is kept.
        early: why the training is not finished (interrupted), or empty.
        checkpoint: the folder from which ``--resume`` continues, or empty.
        written: files that were written.
        notes: statements for the user.
    """

    options: RetrainOptions
    metric: str
    loss: str
    split: Split
    run: Run
    controls: tuple[Run, ...] = ()
    against: tuple[Against, ...] = ()
    before: Audit | None = None
    after: Audit | None = None
    early: str = ""
    checkpoint: str = ""
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
