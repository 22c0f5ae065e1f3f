"""The same batches for every arm: laps of equal length over one order of the data."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vgaudit.training.split import Feed


@dataclass(frozen=True, kw_only=True)
class Laps(Feed):
    """A feed whose epochs are ``lap`` whole batches, however many samples there are.

    The batches of all laps, one after the other, are those of ordinary epochs: every
    sample once (but for the rest of a batch), then again in another order.

    Attributes:
        lap: optimizer steps between two validations.
    """

    lap: int

    @property
    def steps(self) -> int:
        """Optimizer steps in one lap."""
        return self.lap

    def order(self, epoch: int) -> Tensor:
        """Returns positions of the training samples in one lap, ``[lap · size]``."""
        each = len(self.train_rows) // self.size
        first = (epoch - 1) * self.lap
        parts, at = [], first
        while at < first + self.lap:
            number, start = divmod(at, each)
            count = min(each - start, first + self.lap - at)
            order = Feed.order(self, number + 1)
            parts.append(order[start * self.size : (start + count) * self.size])
            at += count
        return torch.cat(parts)


def laps(fed: Feed, *, lap: int, seed: int, valid: Tensor) -> Laps:
    """Returns the feed of one training.

    Args:
        fed: the data, split once for all.
        lap: steps between two validations.
        seed: of the order.
        valid: rows that choose the epoch.
    """
    given = {field.name: getattr(fed, field.name) for field in fields(Feed)}
    return Laps(**{**given, "seed": seed, "valid_rows": valid, "lap": lap})
