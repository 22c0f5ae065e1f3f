"""Random states of a training: seeded once, saved and restored with it."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

import torch


def seed_all(seed: int) -> None:
    """Seeds torch, Python and numpy, as a training script would."""
    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def states() -> dict[str, Any]:
    """Returns all random states as tensors, numbers and text."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "cuda": _cuda(),
    }
    if numpy := sys.modules.get("numpy"):
        kind, keys, place, has_gauss, gauss = numpy.random.get_state()
        found["numpy"] = (
            str(kind),
            torch.from_numpy(keys.astype("int64")),
            int(place),
            int(has_gauss),
            float(gauss),
        )
    return found


def restore(found: dict[str, Any]) -> None:
    """Puts back what ``states`` returned."""
    torch.set_rng_state(found["torch"])
    version, internal, gauss = found["python"]
    random.setstate((version, tuple(internal), gauss))
    if found["cuda"] and len(found["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(found["cuda"])
    if "numpy" in found and (numpy := sys.modules.get("numpy")):
        kind, keys, *rest = found["numpy"]
        numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))


def restore_one(found: Sequence[dict[str, Any]], rank: int) -> None:
    """Puts back what one rank's ``states`` returned.

    A rank that was not there before goes on from its own seed.
    """
    if rank < len(found):
        restore(found[rank])


def _cuda() -> list[Any]:
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    return list(torch.cuda.get_rng_state_all())
