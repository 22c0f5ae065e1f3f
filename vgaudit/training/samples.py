"""Training samples by number: kept in memory where they fit, else read in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.data.batches import Skips
from vgaudit.data.calls import tensors, to_batch
from vgaudit.data.fitting import Fit
from vgaudit.data.sampling import collate
from vgaudit.data.seeding import private_random
from vgaudit.data.sources.content import Unreadable
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible
from vgaudit.probe.tensors import map_tensors

MOST_KEPT = 4 * 2**30
"""Bytes of samples that are kept in memory; more are read again in every epoch."""

_CHUNK = 1000

Say = Callable[[str], None]


class Store(Protocol):
    """Where samples come from."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor, place: tuple[int | str, ...]) -> Any:
        """Returns the samples ``rows`` stacked, or None where none can be read.

        ``place`` seeds what samples change at random.
        """


@dataclass(frozen=True, slots=True)
class Kept:
    """Samples in memory: containers of tensors whose first dimension counts them."""

    stacked: Any
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, rows: Tensor, place: tuple[int | str, ...]) -> Any:
        """Returns the samples ``rows``, in this order."""
        return map_tensors(self.stacked, lambda tensor: tensor[rows])


@dataclass(frozen=True, slots=True)
class Read:
    """Samples that are read whenever they are needed."""

    samples: Any
    skips: Skips
    seed: int
    join: Callable[[list[Any]], Any] = collate

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: Tensor, place: tuple[int | str, ...]) -> Any:
        """Returns the samples ``rows`` that can be read.

        Raises:
            CannotLoad: the data set's own code fails.
        """
        with private_random(self.seed, "sample", *place):
            found = [sample for row in rows.tolist() if (sample := self._one(row))]
            return self.join([sample[0] for sample in found]) if found else None

    def _one(self, row: int) -> tuple[Any] | None:
        try:
            return (self.samples[row],)
        except Unreadable as error:
            self.skips.add(error.what, error.why)
            return None
        except Exception as error:
            raise CannotLoad(
                f"the data set fails on sample {row}: "
                f"{type(error).__name__}: {visible(str(error))}"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples as calls of one model.

    Attributes:
        store: where they come from.
        model: whose signature they follow. fit: changes arrays to what it takes.
        spec: as the user gave it. notes: statements for the user.
        skips: what could not be used; grows while samples are read.
        batch_size: that of the user's own loader, if there was one.
        only: the one batch size that the model takes, where it takes no other.
    """

    store: Store
    model: nn.Module
    spec: str
    skips: Skips
    fit: Fit | None = None
    notes: tuple[str, ...] = ()
    batch_size: int | None = None
    only: int | None = None

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, rows: Tensor, *place: int | str) -> Batch | None:
        """Returns one call of the model on the samples ``rows``, on the CPU.

        Args:
            rows: numbers of samples, ``[N]``.
            place: of the batch in the training; seeds random changes of samples.
        """
        element = self.store.take(rows, place)
        if element is None:
            return None
        batch = to_batch(element, self.model)
        return batch if self.fit is None else self.fit.apply(batch)


def keep(samples: Any, skips: Skips, say: Say) -> Kept | None:
    """Returns samples in memory, or None where they are too many or too unlike.

    Raises:
        CannotLoad: none can be read.
    """
    reader = Read(samples, skips, seed=0)
    first = next((s for row in range(len(reader)) if (s := reader._one(row))), None)
    if first is None:
        raise CannotLoad(f"none of {len(reader):,} samples can be read")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(first[0]))
    if size * len(reader) > MOST_KEPT:
        return None
    chunks = []
    told = max(_CHUNK, len(reader) // 5)
    for start in range(0, len(reader), _CHUNK):
        if start and start % told < _CHUNK:
            say(f"reading the data: {start:,} of {len(reader):,}")
        rows = range(start, min(start + _CHUNK, len(reader)))
        found = [sample[0] for row in rows if (sample := reader._one(row))]
        try:
            chunks.append(collate(found) if found else None)
        except CannotLoad:
            return None
    return joined([chunk for chunk in chunks if chunk is not None])


def joined(batches: Sequence[Any]) -> Kept | None:
    """Returns batches of one form as one store; None where they differ in shape."""
    lists = [list(tensors(batch)) for batch in batches]
    if not lists or not lists[0] or any(len(x) != len(lists[0]) for x in lists):
        return None
    columns = list(zip(*lists, strict=True))
    shapes = [{(t.shape[1:], t.dtype) for t in column} for column in columns]
    if any(t.dim() == 0 for x in lists for t in x) or any(len(s) > 1 for s in shapes):
        return None
    whole = iter([torch.cat(list(column)) for column in columns])
    stacked = map_tensors(batches[0], lambda _old: next(whole))
    counts = {len(tensor) for tensor in tensors(stacked)}
    return Kept(stacked, counts.pop()) if len(counts) == 1 else None
