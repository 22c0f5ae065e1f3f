"""Where and with what a measurement was made."""

from __future__ import annotations

import platform
import time

import torch

from vgaudit.flow import RunFacts


def run_facts(
    device: str,
    seed: int,
    *,
    started: float,
    nondeterministic: tuple[str, ...] = (),
) -> RunFacts:
    """Returns the environment of a run that ends now.

    Args:
        device: where it ran.
        seed: of its random numbers.
        started: when it began, by ``time.perf_counter``.
        nondeterministic: operations that torch warned of.
    """
    return RunFacts(
        torch=torch.__version__,
        python=platform.python_version(),
        device=device,
        seed=seed,
        seconds=time.perf_counter() - started,
        nondeterministic=nondeterministic,
    )
