"""What a way of training must be able to do for the loop to drive it.

The loop owns the data, the epochs, validation, checkpoints, signals and the record;
a method owns one thing: how a batch changes the model. A method of its own is a
class with these members and one line in ``vgaudit.training.methods``.

A gradient method takes one optimizer step in each ``step``. A solver that needs all
samples at once says so in its entry (``whole``): then an epoch is one call of
``step`` with one batch that holds every training sample, in the same order each time.

The loop keeps these promises:

- ``setup.model`` is on ``setup.device``, in train mode before every ``step``, and
  trained in place; batches are on the same device.
- Python's and torch's global random numbers are seeded, and continue over a resume.
- Model weights and buffers are saved and restored by the loop. ``load_state_dict``
  is called once, right after the method was built on a model with those weights.
- Checkpoints are taken between two calls of ``step``, never within one.

A method promises:

- ``step`` changes nothing where it returns a reason in ``skipped``, nor where it
  raises because memory ran out; the loop then calls it again with more ``parts``.
- ``state_dict`` holds tensors, numbers, text, None, and lists, tuples and dicts of
  such: it is read back without unpickling anything else.
- All randomness comes from torch's global state or from its own seeded generators,
  whose state is part of ``state_dict``: resumed training is bit-equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.retraining import RetrainOptions
from vgaudit.training.crew import ALONE, Crew

if TYPE_CHECKING:
    from vgaudit.training.trainee import Trainee


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What one call of ``step`` did.

    Attributes:
        loss: mean over the batch's samples, before the step; NaN where unknown.
        skipped: why nothing was changed (``the loss is NaN``), or empty.
    """

    loss: float
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good the model is on the validation samples.

    Attributes:
        loss: mean over all labels that count, or over the samples where all do.
        metric: accuracy or R²; None where neither fits.
        samples: how many.
    """

    loss: float
    metric: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a method is built on.

    Attributes:
        model: trained in place.
        loss: ``loss.function(output, labels)`` is a scalar, the mean over samples.
        example: the first training batch (every training sample, for ``whole``).
        options: the user's; ``options.settings`` belong to the method.
        epochs, steps: how many there will be, ``steps`` over all epochs.
        device: where everything is.
        observe: call it in ``step`` when the gradients of the whole step lie in
            ``.grad``, unscaled and before clipping; it records the flow, on some
            steps only. A method without such gradients leaves it.
        validate: scores of the model as it is, in eval mode; None without
            validation samples.
        say: tells the user one sentence, which also becomes a note of the report.
        crew: the processes that train together.
        trainee: ``model`` in training, as it is copied or spread over the crew; None
            where it is just itself.
    """

    model: nn.Module
    loss: Loss
    example: Batch
    options: RetrainOptions
    epochs: int
    steps: int
    device: torch.device
    observe: Callable[[], None]
    validate: Callable[[], Scores] | None
    say: Callable[[str], None]
    crew: Crew = ALONE
    trainee: Trainee | None = None

    @property
    def plain(self) -> nn.Module:
        """The model as an ordinary one, to be looked at: its weights are whole."""
        return self.model if self.trainee is None else self.trainee.plain


class Method(Protocol):
    """A way of training."""

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Trains on one batch.

        Args:
            batch: on the device.
            rows: numbers of its samples within the training samples, ``[N]``, on the
                CPU: the same sample has the same number in every epoch.
            parts: compute it in that many parts, so that less memory is needed; the
                change of the model is that of the whole batch.
            weight: of the batch's mean loss, whose gradient is averaged over the crew:
                its labels that count, or samples, by those of a mean rank. Methods
                that need all samples run in one process, where it is 1.

        Raises:
            VgauditError: the model or loss fail; the training ends.
        """

    @property
    def lr(self) -> float | None:
        """The learning rate of the next step, None where there is none."""

    def figures(self) -> dict[str, float]:
        """Returns what to record of the epoch that just ended, by name."""

    def finish(self) -> bool:
        """Brings the model to what is delivered, after the last epoch.

        Not called where training is interrupted. The loop loads the best weights
        afterwards, unless this returns True.

        Returns:
            whether it changed the model: then the model is validated once more, as
            an epoch of its own, and delivered as it is.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a resumed training needs beside the model."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model made ready for a method.

    Attributes:
        model: what is trained; another object where it had to be converted.
        notes: what was done, for the user.
        came: the model as it came, if ``model`` is a conversion of it, which is part
            of the treatment then: it is epoch 0, and what the controls train.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    came: nn.Module | None = None


def as_it_is(
    model: nn.Module, _batches: Sequence[Batch], _options: RetrainOptions
) -> Prepared:
    """Returns the model unchanged."""
    return Prepared(model)


def ten_epochs(_model: nn.Module, _options: RetrainOptions) -> int:
    """Returns the usual number of epochs."""
    return 10


def in_batches(_options: RetrainOptions) -> bool:
    """Returns False: an epoch is many batches."""
    return False


def together(_options: RetrainOptions) -> str:
    """Returns nothing: ranks can share the work."""
    return ""


def anything(_options: RetrainOptions) -> None:
    """Refuses nothing: what is wrong is told when the method is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the table of methods.

    Attributes:
        build: makes the method; raises ``BadConfig`` for settings that it does not
            know and ``CannotRewrite`` for models that it cannot train.
        whole: whether an epoch is one step on all samples.
        alone: why several processes cannot train so together, with the way out; or
            nothing.
        epochs: how many, where the user does not say.
        prepare: converts the model where the method needs that; gets the model, a
            few training batches, and the options.
        controls: methods that always train beside it, such as ``readout``.
        check: refuses settings before anything is loaded; raises ``BadConfig``.
    """

    build: Callable[[Setup], Method]
    whole: Callable[[RetrainOptions], bool] = in_batches
    alone: Callable[[RetrainOptions], str] = together
    epochs: Callable[[nn.Module, RetrainOptions], int] = ten_epochs
    prepare: Callable[[nn.Module, Sequence[Batch], RetrainOptions], Prepared] = as_it_is
    controls: tuple[str, ...] = ()
    check: Callable[[RetrainOptions], object] = anything
