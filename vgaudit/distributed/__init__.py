"""Several processes that work on one task, on torch.distributed."""

from vgaudit.distributed.group import Group, joined
from vgaudit.ranks import Ranks, launched

__all__ = ["Group", "Ranks", "joined", "launched"]
