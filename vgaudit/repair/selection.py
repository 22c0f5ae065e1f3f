"""Who goes on: successive halving within each family, by what the search has shown.

Every family enters as many arms, and as many go on; so all take the same number of
optimizer steps. The samples that judge take no part.

Source: Jamieson & Talwalkar, AISTATS 2016, for non-stochastic best-arm identification
by successive halving; here in two rounds, the first with a quarter of the steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from vgaudit.fixing import FAMILIES, Arm, Attempt, Length, Plan, Rung

SHORT = 4
"""The first round trains for one step in so many, and one arm in so many goes on."""


def rungs(trials: int, length: Length) -> tuple[Rung, ...]:
    """Returns the rounds of a search over so many arms of each family."""
    if trials == 1:
        return ()
    short = Length(lap=length.lap, count=max(1, length.count // SHORT))
    first, left = Rung(entrants=trials, length=short), math.ceil(trials / SHORT)
    return (first,) if left == 1 else (first, Rung(entrants=left, length=length))


Turns = tuple[tuple[Arm, int, int | None], ...]
"""Trainings that need nothing of each other: arm, seed and rung (None: it proves)."""


def rounds(plan: Plan, attempts: Sequence[Attempt]) -> Iterator[Turns]:
    """Yields the trainings of each round in order, the proof's at the end.

    Args:
        plan: of the repair.
        attempts: what is finished; it grows meanwhile, and is looked at when a round
            is over.
    """
    for number in range(len(plan.rungs)):
        entered = entrants(plan, attempts, number)
        yield tuple((arm, plan.search_seed, number) for arm in entered)
    finalists = entrants(plan, attempts, len(plan.rungs))
    yield tuple((arm, seed, None) for seed in plan.seeds for arm in finalists)


def turns(
    plan: Plan, attempts: Sequence[Attempt]
) -> Iterator[tuple[Arm, int, int | None]]:
    """Yields every training in order, as ``rounds`` does."""
    return itertools.chain.from_iterable(rounds(plan, attempts))


def entrants(plan: Plan, attempts: Sequence[Attempt], number: int) -> tuple[Arm, ...]:
    """Returns the arms of a round; the round behind the last one is the proof."""
    if number == 0:
        return plan.arms
    last = number == len(plan.rungs)
    count = 1 if last else plan.rungs[number].entrants
    found: list[Arm] = []
    for family in FAMILIES:
        shown = {arm: _search(attempts, arm) for arm in plan.of(family)}
        there = [arm for arm, own in shown.items() if len(own) == number]
        there.sort(key=lambda arm: rank(shown[arm]))
        found += there[:count]
    return tuple(found)


def _search(attempts: Sequence[Attempt], arm: Arm) -> tuple[Attempt, ...]:
    return tuple(a for a in attempts if a.arm == arm.name and a.rung is not None)


def rank(attempts: Sequence[Attempt]) -> tuple[float, ...]:
    """Returns what sorts the best arm first, from its trainings in the search.

    The score of the last training; of those alike, who had the better score sooner;
    of those still alike, as where all are at chance, the lower loss: that it falls is
    the first that can be seen of learning.
    """
    scores = [-math.inf if math.isnan(a.chosen) else a.chosen for a in attempts]
    run = attempts[-1].run
    loss = run.kept.valid_loss if run is not None else None
    last = math.inf if loss is None or math.isnan(loss) else loss
    return (*(-score for score in reversed(scores)), last)
