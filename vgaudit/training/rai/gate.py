"""When a stage moves: the wavefront gate.

In exact arithmetic a stage rests until the label signal has walked down to it, one
cut per step. In floating point the residuals at the start are rounding noise, and a
sign-based optimizer turns noise of 1e-7 into full steps: then every stage settles on
targets of its own making, with no label in them, and the signal dies. The gate holds
each stage at exactly zero until its step has come.

Once its targets hold the labels a stage has done its part. It may rest again after a
while (a window); then the cost grows with the depth, not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.errors import BadConfig

RATE = 0.1
AFTER_ARRIVAL = 10
"""Steps beyond one for each cut: later the targets shrink back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Which stages move at which step.

    Stage t = 0 … n ends at cut t; stage n is the output. The target that enters a
    stage moves with it.

    Attributes:
        rate: first step of Rprop.
        closed: hold each stage until the label signal has come to it; False lets
            all move from the start, as the author does.
        window: steps for which a stage moves, None for all that follow.

    Raises:
        BadConfig: a window in which the last stages cannot finish.
    """

    rate: float = RATE
    closed: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < AFTER_ARRIVAL:
            raise BadConfig(
                f"window is {self.window}, and a stage needs {AFTER_ARRIVAL} steps",
                hint=f"give {AFTER_ARRIVAL} or more, or none",
            )

    def moving(self, cuts: int, step: int) -> range:
        """Returns the stages that move at a step, from 0; may be empty."""
        if not self.closed:
            return range(cuts + 1)
        first = cuts - step
        stop = cuts + 1
        if self.window is not None:
            stop = min(stop, first + self.window)
        return range(max(0, first), max(0, stop))


def steps_for(cuts: int) -> int:
    """Returns how many steps the recipe takes: the signal arrives, and ten more."""
    return cuts + AFTER_ARRIVAL
