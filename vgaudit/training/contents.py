"""A short hash of what samples hold: other data is seen without comparing all of it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from vgaudit.data.batches import Skips
from vgaudit.probe.tensors import tensors_in
from vgaudit.training.samples import Kept, Read, Samples
from vgaudit.training.weights import raw

WHOLE = 2**28
"""Bytes of samples in memory that are hashed whole, in a fraction of a second."""

LOOKED_AT = 64
"""Samples that are hashed of others: first, last, and evenly between them."""


def contents(samples: Samples) -> str:
    """Returns a hash of samples with their labels; empty where there can be none.

    Samples that are read are hashed as the training gets them. What changes in them
    at random is drawn from the same seed every time; where it is not, no two readings
    agree, and there is no hash.
    """
    quiet = samples
    if isinstance(samples.store, Read):
        # What cannot be read here counts when the training comes to it.
        store = dataclasses.replace(samples.store, skips=Skips())
        quiet = dataclasses.replace(samples, store=store)
    try:
        found = _hash(quiet)
        steady = isinstance(samples.store, Kept) or found == _hash(quiet)
    except Exception:
        # Whatever is wrong with the data, the training has better words for it.
        return ""
    return found if steady else ""


def _hash(samples: Samples) -> str:
    found = hashlib.sha256(str(len(samples)).encode())
    for part in _parts(samples):
        for tensor in tensors_in(part):
            found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(raw(tensor))
    return found.hexdigest()[:16]


def _parts(samples: Samples) -> Iterator[Any]:
    """Yields all samples at once, or some of them one by one."""
    store = samples.store
    if isinstance(store, Kept):
        held = list(tensors_in(store.stacked))
        if sum(tensor.numel() * tensor.element_size() for tensor in held) <= WHOLE:
            yield held
            return
    last = len(samples) - 1
    for row in dict.fromkeys(n * last // (LOOKED_AT - 1) for n in range(LOOKED_AT)):
        batch = samples.batch(torch.tensor([row]), "contents", row)
        # A sample that cannot be read is one too: it has no tensor.
        yield None if batch is None else (batch.args, batch.kwargs, batch.labels)
