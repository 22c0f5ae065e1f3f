"""Tells the torchvision architecture of bare weights.

Of the candidates that a cheap sign leaves, each is built without memory and
compared key by key and shape by shape. timm is not asked: it has many pairs of
architectures with the same keys and shapes that compute different things
(window sizes, anti-aliasing), so its name must be given.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from vgaudit.errors import CannotLoad
from vgaudit.loading.fit import shapes
from vgaudit.loading.guess import Guess, bare, signature, without_counters
from vgaudit.loading.torchvision_guess import guesses

SECONDS = 2.5
"""Of processor time: not being recognised must not take long."""


def recognise(state: Mapping[str, Any]) -> Guess | None:
    """Returns the torchvision architecture whose keys and shapes these are.

    None where there is none, where torchvision cannot be imported, or where
    looking takes too long.
    """
    given = bare(shapes(state))
    wanted = without_counters(given)
    deadline = time.process_time() + SECONDS
    try:
        for guess in guesses(given):
            if signature(guess) == wanted:
                return guess
            if time.process_time() > deadline:
                break
    except CannotLoad:  # torchvision cannot be imported
        return None
    return None
