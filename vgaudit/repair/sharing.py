"""The ranks that share a repair: each trains whole arms, and all know all attempts.

The first rank alone diagnoses, plans and writes; what it decides goes to all. So the
repair is that of one process, and any number of ranks can resume it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vgaudit.plain import to_json
from vgaudit.training.crew import ALONE, Crew
from vgaudit.typed import typed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who trains the arms of a repair.

    All methods are collective: every rank calls them, in the same order.

    Attributes:
        crew: the ranks; one process alone by default.
    """

    crew: Crew = ALONE

    def settled(self, kind: type[T], work: Callable[[], T]) -> T:
        """Returns what the first rank's work comes to; the others wait for it.

        Args:
            kind: a dataclass of plain values.
            work: not called on the other ranks.

        Raises:
            VgauditError: the work failed, on all ranks.
        """
        if self.crew.size == 1:
            return work()
        made: T | None = None
        with self.agreeing():
            made = work() if self.crew.first else None
        text = self.crew.from_first(to_json(made) if self.crew.first else "")
        return made if made is not None else typed(kind, json.loads(text))

    def told(self, kind: type[T], own: T | None) -> list[T | None]:
        """Returns what each rank has to tell, in order; None where it has nothing."""
        if self.crew.size == 1:
            return [own]
        texts = self.crew.all_of("" if own is None else to_json(own))
        found = [typed(kind, json.loads(text)) if text else None for text in texts]
        found[self.crew.rank] = own
        return found

    def sent(self, value: Any, rank: int) -> Any:
        """Returns one rank's tensors on all ranks."""
        return self.crew.from_rank(value, rank)

    def agreeing(self) -> contextlib.AbstractContextManager[None]:
        """Returns a block of each rank's own work; it fails on all, or on none."""
        group = self.crew.group
        return contextlib.nullcontext() if group is None else group.agreeing()


ONE = Sharing()
"""One process, which does everything."""
