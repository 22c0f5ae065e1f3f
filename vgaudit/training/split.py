"""Which samples are trained on, in which order, and which are only looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.data.batch import Batch
from vgaudit.data.batches import nonfinite, usable
from vgaudit.data.normed import has_batch_norm
from vgaudit.data.opening import agreed_size
from vgaudit.data.seeding import generator_for
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.flow import DataFacts
from vgaudit.retraining import Split
from vgaudit.training.crew import WHOLE, Part
from vgaudit.training.samples import Samples

USUAL_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The data of one training.

    Attributes:
        train, valid: the samples; the same ones where some are held out.
        train_rows, valid_rows: numbers of samples in them.
        size: samples of one optimizer step.
        seed: of the order. split: in words.
        alone: a last batch of one sample is trained on; batch normalization needs two.
        exact: the model takes ``size`` samples at a time: the rest of an epoch and of
            the validation samples is left out.
    """

    train: Samples
    valid: Samples
    train_rows: Tensor
    valid_rows: Tensor
    size: int
    seed: int
    split: Split
    alone: bool = True
    exact: bool = False

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch."""
        count, rest = divmod(len(self.train_rows), self.size)
        if self.exact:
            return count
        return count + (rest > 1 or (rest == 1 and (self.alone or count == 0)))

    @property
    def judged(self) -> int:
        """Validation samples of every score, if all can be used."""
        count = len(self.valid_rows)
        return count - count % self.size if self.exact else count

    def order(self, epoch: int) -> Tensor:
        """Returns the positions of the training samples in one epoch, ``[N]``."""
        generator = generator_for(self.seed, "order", epoch)
        return torch.randperm(len(self.train_rows), generator=generator)

    def step(
        self, epoch: int, number: int, order: Tensor, *, part: Part = WHOLE
    ) -> Drawn:
        """Returns the batch of one step, or a part of it.

        Args:
            epoch: its number.
            number: of the step, from 0 within the epoch.
            order: of the epoch.
            part: which share of the batch's samples.
        """
        rows = order[number * self.size : (number + 1) * self.size]
        rows, counts = part.of(rows, least=1 if self.alone else 2)
        # What changes at random in a sample is drawn anew for each share.
        place = (epoch, number, part.rank) if part.rank else (epoch, number)
        batch = self.train.batch(self.train_rows[rows], *place)
        defect = "" if batch is None else nonfinite(batch)
        return Drawn(batch, rows, defect, counts)

    def everything(self) -> Drawn:
        """Returns all training samples as one batch, always in the same order."""
        batch = self.train.batch(self.train_rows, "all")
        rows = torch.arange(len(self.train_rows))
        return Drawn(batch, rows, "" if batch is None else nonfinite(batch))

    def validation(self, part: Part = WHOLE) -> Iterator[Batch]:
        """Yields the validation samples, the same each time; a part has its batches.

        Samples with NaN or infinity are left out.
        """
        for number, rows in enumerate(self._parts(self.valid_rows, self.size)):
            if number % part.size != part.rank:
                continue
            batch = self.valid.batch(rows, "valid", number)
            if batch is not None and nonfinite(batch):
                batch = self._without_bad(batch, rows, number)
            if batch is not None:
                yield batch

    def _without_bad(self, batch: Batch, rows: Tensor, number: int) -> Batch | None:
        """Returns a validation batch without the samples that are not finite."""
        good = usable(batch)
        if self.exact or len(good) != len(rows) or not good.any():
            return None
        return self.valid.batch(rows[good], "valid", number)

    def look(self, count: int, most: int) -> list[Batch]:
        """Returns a few training batches to measure on, the same each time.

        Args:
            count: how many.
            most: samples of each at the most, but where the model takes no fewer.

        Raises:
            NothingMeasured: none is usable.
        """
        generator = generator_for(self.seed, "look")
        order = torch.randperm(len(self.train_rows), generator=generator)
        size = self.size if self.exact else min(self.size, most)
        found = []
        for number, rows in enumerate(self._parts(order[: count * size], size)):
            batch = self.train.batch(self.train_rows[rows], "look", number)
            if batch is not None and not nonfinite(batch):
                found.append(batch)
        if not found:
            raise NothingMeasured(
                f"no batch of {self.train.spec} is usable: NaN or infinity",
                hint="look at how the data is read and scaled",
            )
        return found

    def facts(self) -> DataFacts:
        """Returns where the data came from."""
        return DataFacts(
            kind="real",
            spec=self.train.spec,
            loss="auto",
            skipped=self.train.skips.sentences(),
            notes=self.train.notes,
        )

    def _parts(self, rows: Tensor, size: int) -> Iterator[Tensor]:
        end = len(rows) - len(rows) % size if self.exact else len(rows)
        for start in range(0, end, size):
            yield rows[start : start + size]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One batch for training.

    Attributes:
        batch: None where no sample could be read.
        rows: numbers of the samples within the training samples.
        defect: what is not finite in it, or empty.
        counts: False for a stand-in, which runs and changes nothing.
    """

    batch: Batch | None
    rows: Tensor
    defect: str
    counts: bool = True

    @property
    def samples(self) -> int:
        """How many samples count."""
        return self.batch.size if self.counts and self.batch is not None else 0

    @property
    def reason(self) -> str:
        """Why the batch cannot be trained on, or nothing."""
        if self.batch is None:
            return "no sample of the batch can be read"
        return self.defect


def feed(
    samples: Samples,
    other: Samples | None,
    *,
    share: float,
    size: int | None,
    seed: int,
) -> Feed:
    """Returns the data of a training: split, sized, seeded.

    Args:
        samples: all samples.
        other: validation samples of their own, or None.
        share: of the samples to hold out, where there is no ``other``.
        size: of a step; None takes the model's only one or the loader's, else 64.
        seed: of split and order.

    Raises:
        BadConfig: a share outside [0, 1), too few samples to split, or a size that the
            model does not take.
    """
    if not 0.0 <= share < 1.0:
        raise BadConfig(
            f"the share held out is {share:g}",
            hint="give a number from 0 to below 1, such as --valid-split 0.1",
        )
    total = len(samples)
    order = torch.randperm(total, generator=generator_for(seed, "split"))
    held = 0 if other is not None else round(total * share)
    if other is None and share > 0 and not 0 < held < total:
        raise BadConfig(
            f"{share:g} of {total} samples leave nothing to train or to validate on",
            hint="give more data, or --valid-split 0",
        )
    valid, train = order[:held].sort().values, order[held:].sort().values
    if other is not None:
        valid = torch.arange(len(other))
        how = f"{len(valid):,} samples of {other.spec}"
    elif held:
        how = f"{held:,} of {total:,} samples, held out by seed {seed}"
    else:
        how = "none"
    only = samples.only
    wanted = agreed_size(size, only) or samples.batch_size or USUAL_SIZE
    if only is not None:
        samples = _told(samples, len(train), len(valid))
    return Feed(
        train=samples,
        valid=other if other is not None else samples,
        train_rows=train,
        valid_rows=valid,
        size=min(wanted, len(train)),
        seed=seed,
        split=Split(train=len(train), valid=len(valid), how=how),
        alone=not has_batch_norm(samples.model),
        exact=only is not None,
    )


def _told(samples: Samples, train: int, valid: int) -> Samples:
    """Returns samples that note what a model's only batch size leaves out.

    Raises:
        BadConfig: there are too few to train or to validate on.
    """
    only = samples.only
    assert only is not None
    if train < only or 0 < valid < only:
        raise BadConfig(
            f"the model takes batches of {only}, and there are {train} samples to "
            f"train and {valid} to validate on",
            hint="give more data, or another --valid-split",
        )
    note = (
        f"the model takes batches of {only} only: {train % only} training samples are "
        f"left out of each epoch, {valid % only} validation samples of every score"
    )
    return dataclasses.replace(samples, notes=(*samples.notes, note))
