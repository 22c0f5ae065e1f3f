"""How good a model is on samples: mean loss, and accuracy or R² where one fits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import counted, settled
from vgaudit.data.losses.compare import IGNORED, classify
from vgaudit.data.losses.outputs import main_output
from vgaudit.data.seeding import private_random
from vgaudit.errors import CannotRun, VgauditError
from vgaudit.plain import visible
from vgaudit.probe.forward import failed_call, is_out_of_memory
from vgaudit.probe.tensors import cast
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.method import Scores

ACCURACY, R_SQUARED = "accuracy", "R²"

_CLASSES = ("cross-entropy", "nll")
_BINARY = {"bce-with-logits": 0.0, "bce": 0.5}
_REAL = ("mse", "l1")
_OF_TORCH = {
    "CrossEntropyLoss": "cross-entropy",
    "NLLLoss": "nll",
    "BCEWithLogitsLoss": "bce-with-logits",
    "BCELoss": "bce",
    "MSELoss": "mse",
    "L1Loss": "l1",
    "cross_entropy": "cross-entropy",
    "nll_loss": "nll",
    "binary_cross_entropy_with_logits": "bce-with-logits",
    "binary_cross_entropy": "bce",
    "mse_loss": "mse",
    "l1_loss": "l1",
}
"""torch's own losses → the names under which a metric is known beside them."""


class Metric(Protocol):
    """Collects over batches."""

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Takes one batch."""

    def value(self) -> float | None:
        """Returns the metric over all batches; None where it is not defined."""

    def state(self) -> tuple[Any, ...]:
        """Returns what was collected, as plain values and tensors."""

    def merge(self, state: tuple[Any, ...]) -> None:
        """Takes what another one collected on other batches."""


class Accuracy:
    """Share of decisions that are right; labels that the loss ignores do not count.

    Args:
        name: of the loss: it tells how outputs are to be read.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._right = 0
        self._all = 0

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Takes one batch."""
        if self._name in _CLASSES:
            if labels.is_floating_point() and labels.shape == output.shape:
                labels = labels.argmax(1)
            output, labels = classify(output, labels, self._name)
            found = output.argmax(min(1, output.dim() - 1))
            counted = labels != IGNORED
            self._right += int(((found == labels) & counted).sum())
            self._all += int(counted.sum())
            return
        found = output > _BINARY[self._name]
        self._right += int((found == (labels.reshape(output.shape) > 0.5)).sum())
        self._all += labels.numel()

    def value(self) -> float | None:
        """Returns the share."""
        return self._right / self._all if self._all else None

    def state(self) -> tuple[Any, ...]:
        """Returns the two counts."""
        return self._right, self._all

    def merge(self, state: tuple[Any, ...]) -> None:
        """Adds the counts of another one."""
        self._right += state[0]
        self._all += state[1]


class RSquared:
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)², ȳ for each output, sums over all of them.

    Batches merge by the rule of Chan, Golub and LeVeque, in float64.
    """

    def __init__(self) -> None:
        self._residual = 0.0
        self._count = 0
        self._mean: Tensor | None = None
        self._spread: Tensor | None = None

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Takes one batch."""
        wanted = labels.detach().double().cpu().reshape(len(labels), -1)
        given = output.detach().double().cpu().reshape(wanted.shape)
        residual = float((wanted - given).square().sum())
        mean = wanted.mean(0)
        spread = (wanted - mean).square().sum(0)
        self.merge((residual, len(wanted), mean, spread))

    def state(self) -> tuple[Any, ...]:
        """Returns Σ (y − ŷ)², the number of samples, ȳ and Σ (y − ȳ)²."""
        return self._residual, self._count, self._mean, self._spread

    def merge(self, state: tuple[Any, ...]) -> None:
        """Takes the sums of other batches."""
        residual, count, mean, spread = state
        self._residual += residual
        if self._mean is None or self._spread is None:
            self._mean, self._spread, self._count = mean, spread, count
        elif count:
            total = self._count + count
            shift = mean - self._mean
            self._spread = (
                self._spread + spread + shift.square() * self._count * count / total
            )
            self._mean = self._mean + shift * count / total
            self._count = total

    def value(self) -> float | None:
        """Returns R²; None where all labels are the same."""
        spread = 0.0 if self._spread is None else float(self._spread.sum())
        return 1.0 - self._residual / spread if spread > 0 else None


def metric_of(loss: Loss) -> str:
    """Returns the name of the metric that goes with a loss; empty without one."""
    name = settled(loss).name
    if name in _CLASSES or name in _BINARY:
        return ACCURACY
    return R_SQUARED if name in _REAL else ""


def without_metric(loss: Loss) -> str:
    """Returns why no metric stands beside a loss, or nothing where one does."""
    if metric_of(loss):
        return ""
    name = settled(loss).name
    known = _OF_TORCH.get(name)
    hint = f"; named '{known}' it has one" if known is not None else ""
    return (
        f"no accuracy or R² is known for the loss {visible(name)}: the epoch to keep "
        f"is chosen by the validation loss{hint}"
    )


def _metric(loss: Loss) -> Metric | None:
    name = settled(loss).name
    kind = metric_of(loss)
    if not kind:
        return None
    return Accuracy(name) if kind == ACCURACY else RSquared()


def score(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    device: torch.device,
    *,
    crew: Crew = ALONE,
) -> Scores | None:
    """Returns how good a model is on batches; None where there is none.

    The model runs in eval mode and is left in the mode it was in; random states of
    torch, Python and numpy stay. A crew has the scores of all its ranks' batches. The
    loss is the mean over all labels that count, NaN without any.

    Raises:
        CannotRun: the loss does not fit.
    """
    modes = [(module, module.training) for module in model.modules()]
    total, counts, samples = 0.0, 0.0, 0
    metric = _metric(loss)
    model.eval()
    try:
        with private_random(), torch.no_grad():
            for batch in batches:
                output, labels = forward(model, batch, device)
                if count := counted(loss, batch):
                    total += float(loss.function(output, labels)) * count
                    counts += count
                samples += batch.size
                given, wanted = main_output(output), main_output(labels)
                if metric is not None and given is not None and wanted is not None:
                    metric.add(given, wanted)
    finally:
        for module, training in modes:
            module.training = training
    own = metric.state() if metric else ()
    states = crew.all_of((total, counts, samples, own))
    if crew.size > 1:
        total, counts, samples = (sum(s[n] for s in states) for n in range(3))
        metric = _metric(loss)
        for *_, state in states:
            if metric is not None:
                metric.merge(state)
    if not samples:
        return None
    value = metric.value() if metric is not None else None
    mean = total / counts if counts else math.nan
    return Scores(loss=mean, metric=value, samples=samples)


def forward(model: nn.Module, batch: Batch, device: torch.device) -> tuple[Any, Any]:
    """Returns output and labels of a batch, on the device.

    Raises:
        CannotRun: the model fails, or memory runs out.
    """
    args, kwargs, labels = cast(
        (batch.args, batch.kwargs, batch.labels), device=device, dtype=None
    )
    try:
        return model(*args, **kwargs), labels
    except VgauditError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise CannotRun(
                f"out of memory with {batch.size} samples at once",
                hint="lower --batch-size; --accumulate 2 leaves the steps as they are",
            ) from error
        raise failed_call(error) from error
