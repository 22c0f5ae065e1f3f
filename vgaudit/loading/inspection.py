"""What can be said of a model without running anything of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from vgaudit.loading.keys import WRAPPERS
from vgaudit.loading.recognise import recognise
from vgaudit.loading.wording import shorten

SHOWN_KEYS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A model from outside; plain values throughout.

    Attributes:
        spec: as the user gave it.
        format: as in ``vgaudit.flow.Target``, or the name of a foreign format.
        tier: of trust that loading needs, ``T0`` … ``T3``; empty where the
            format is not read at all.
        path, size, sha256: of the file; None where there is none.
        unsafe_globals: names that keep a pickle from a safer tier.
        tensors, parameters: how many tensors, and elements in them; None where
            they cannot be told.
        dtypes: how many tensors have each type.
        keys: the first keys of the checkpoint or state_dict.
        entries: entries of a checkpoint that hold weights, for ``--key``.
        architecture: class, zoo name, or what was recognised; empty if unknown.
        stripped_prefixes: what wrappers left in the keys.
        metadata: free texts of the file.
        archive_notes, notes: statements for the user.
    """

    spec: str
    format: str
    tier: str
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    unsafe_globals: tuple[str, ...] = ()
    tensors: int | None = None
    parameters: int | None = None
    dtypes: dict[str, int] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    architecture: str = ""
    stripped_prefixes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    archive_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_tensors(known: Inspection, state: Mapping[str, Any]) -> Inspection:
    """Returns the inspection with the figures of a state_dict."""
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    kinds = Counter(str(t.dtype).removeprefix("torch.") for t in tensors)
    parts = {part for key in state for part in key.split(".")}
    return replace(
        known,
        tensors=len(tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        dtypes=dict(kinds.most_common()),
        keys=shown(state),
        stripped_prefixes=tuple(f"{part}." for part in WRAPPERS if part in parts),
    )


def with_guess(known: Inspection, state: Mapping[str, Any]) -> Inspection:
    """Returns the inspection with the architecture that the weights fit, if any."""
    guess = recognise(state)
    return known if guess is None else replace(known, architecture=str(guess))


def shown(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the first keys of a dict, harmless to print."""
    return tuple(shorten(str(key)) for key in list(keys)[:SHOWN_KEYS])
