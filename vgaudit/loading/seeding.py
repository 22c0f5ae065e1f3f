"""Random states that come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws from ``seed`` inside; Python's, NumPy's and torch's states return."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    # CUDA is seeded only where it runs already: seeding a sleeping device is
    # queued, and would change the caller's state when the device wakes.
    awake = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if awake else []
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            if awake:
                torch.cuda.manual_seed_all(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
