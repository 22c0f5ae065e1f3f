"""Batches out of user code: run once, seeded, and kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset

from vgaudit.data.sampling import collate
from vgaudit.data.seeding import private_random
from vgaudit.errors import CannotLoad, VgauditError
from vgaudit.job import DataOptions
from vgaudit.plain import visible

_SIZE = 8


class Stream:
    """The first batches of a loader, an iterable data set or any iterable."""

    def __init__(self, source: Iterable[Any], options: DataOptions) -> None:
        self._source = source
        self._options = options
        self._kept: list[Any] | None = None

    def draw(self) -> Iterator[Any]:
        """Yields the batches, the same objects each time.

        Raises:
            CannotLoad: the user's code fails.
        """
        if self._kept is None:
            self._kept = self._read()
        yield from self._kept

    def _read(self) -> list[Any]:
        seed = self._options.seed
        try:
            with private_random(seed, "stream"), _generators_kept(self._source):
                return list(itertools.islice(self._batches(), self._options.batches))
        except VgauditError:
            raise
        except Exception as error:
            raise CannotLoad(
                f"the data fails: {type(error).__name__}: {visible(str(error))}"
            ) from error

    def _batches(self) -> Iterator[Any]:
        if not isinstance(self._source, IterableDataset):
            yield from self._source
            return
        items = iter(self._source)
        size = self._options.batch_size or _SIZE
        while chosen := list(itertools.islice(items, size)):
            yield collate(chosen)


@contextlib.contextmanager
def _generators_kept(source: Any) -> Iterator[None]:
    """Puts a loader's own generators back as they were."""
    owners = (source, getattr(source, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = [g for g in found if isinstance(g, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
