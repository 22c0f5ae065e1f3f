"""Samples by number into batches: seeded, the same on every run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate

from vgaudit.data.batches import Skips
from vgaudit.data.calls import tensors
from vgaudit.data.inputs.infer import default_batch_size
from vgaudit.data.normed import NORM_NOTE, has_batch_norm
from vgaudit.data.seeding import generator_for, private_random
from vgaudit.data.sources.content import Samples, Unreadable
from vgaudit.errors import CannotLoad
from vgaudit.job import DataOptions
from vgaudit.plain import visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Random batches without replacement.

    Attributes:
        samples: where they come from. skips: takes those that cannot be read.
        count: how many batches. size: samples in each.
        seed: of the order, and of random changes that samples make to themselves.
        pairs: a last sample that is left alone makes no batch.
        notes: statements for the user.
    """

    samples: Samples
    skips: Skips
    count: int
    size: int
    seed: int
    pairs: bool
    notes: tuple[str, ...] = ()

    def draw(self) -> Iterator[Any]:
        """Yields collated batches until the samples are used up."""
        total = len(self.samples)
        order = torch.randperm(total, generator=generator_for(self.seed, "order"))
        places = iter(order.tolist())
        for number in range(self.count):
            with private_random(self.seed, "batch", number):
                readable = read(self.samples, places, self.skips)
                chosen = list(itertools.islice(readable, self.size))
                if not chosen:
                    return
                if self.pairs and number and len(chosen) == 1:
                    self.skips.add("the last sample", f"left over alone: {NORM_NOTE}")
                    return
                batch = collate(chosen)
            yield batch


def sampling(
    samples: Samples,
    skips: Skips,
    options: DataOptions,
    *,
    model: nn.Module | None,
    mode: str,
) -> Sampling:
    """Returns how ``samples`` are drawn: sizes by default, at least two for norms.

    Raises:
        CannotLoad: the samples fail, or there is none.
    """
    if len(samples) == 0:
        raise CannotLoad("the data set has no sample", hint="is its folder right?")
    pairs = model is not None and mode == "train" and has_batch_norm(model)
    size = options.batch_size or _default_size(samples, skips, model)
    notes: tuple[str, ...] = ()
    if pairs and size == 1 and len(samples) > 1:
        size, notes = 2, (f"batch size raised to 2: {NORM_NOTE}",)
    return Sampling(
        samples=samples,
        skips=skips,
        count=options.batches,
        size=size,
        seed=options.seed,
        pairs=pairs,
        notes=notes,
    )


def read(samples: Samples, places: Iterator[int], skips: Skips) -> Iterator[Any]:
    """Yields samples; one that cannot be read gives way to the next.

    Raises:
        CannotLoad: the data set's own code fails.
    """
    for place in places:
        try:
            sample = samples[place]
        except Unreadable as error:
            skips.add(error.what, error.why)
            continue
        except Exception as error:
            raise CannotLoad(
                f"the data set fails on sample {place}: "
                f"{type(error).__name__}: {visible(str(error))}"
            ) from error
        yield sample


def collate(chosen: Sequence[Any]) -> Any:
    """Returns samples stacked as torch's ``DataLoader`` does.

    Raises:
        CannotLoad: they differ in shape, or hold what cannot be stacked.
    """
    try:
        return default_collate(list(chosen))
    except (TypeError, RuntimeError) as error:
        raise CannotLoad(
            f"samples cannot be put together in one batch: {visible(str(error))}",
            hint="return a DataLoader with a collate_fn, or ask for --batch-size 1",
        ) from error


def _default_size(samples: Samples, skips: Skips, model: nn.Module | None) -> int:
    with private_random(0):
        sample = next(read(samples, iter(range(len(samples))), skips), None)
    numel = sum(tensor.numel() for tensor in tensors(sample))
    return default_batch_size(numel, model if model is not None else nn.Identity())
