"""Random numbers of our own: the caller's random states are never touched."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator

import torch


def generator_for(seed: int, *path: int | str) -> torch.Generator:
    """Returns a CPU generator for one place: the same place, the same numbers.

    The seed and the place are hashed, so that neighbouring seeds and batches
    share nothing.
    """
    text = ":".join(str(part) for part in (seed, *path))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextlib.contextmanager
def private_random(seed: int | None = None, *path: int | str) -> Iterator[None]:
    """Restores the random states of torch, Python and numpy at the end.

    Within the block they start from ``seed`` and ``path`` when a seed is given:
    user code (datasets, samplers, factories) draws from the global states.
    """
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    # Seeding a device that sleeps is queued, and would reach the caller later.
    awake = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if awake else []
    with torch.random.fork_rng(devices):
        try:
            if seed is not None:
                number = generator_for(seed, *path).initial_seed()
                torch.default_generator.manual_seed(number)
                random.seed(number)
                if numpy:
                    numpy.random.seed(number % 2**32)
                if awake:
                    torch.cuda.manual_seed_all(number)
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(numpy_state)
