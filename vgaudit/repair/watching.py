"""Who watches the trainings of a repair: passes on progress, and ends them."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.retraining import Progress
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import Interrupted


@dataclass(frozen=True, slots=True)
class Stoppable:
    """Watches a training, which ends after a step where that is asked for."""

    around: Surroundings

    def step(self, progress: Progress) -> None:
        """Passes on how far it is.

        Raises:
            Interrupted: the end was asked for.
        """
        if self.around.stop():
            raise Interrupted
        self.around.report(progress)

    def say(self, sentence: str) -> None:
        """Says nothing: what one training says is in its record."""
