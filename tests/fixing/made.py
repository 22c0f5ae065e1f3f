"""Repairs that never ran: plans and attempts with scores made up for a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vgaudit.fixing import FAMILIES, Arm, Attempt, Fixing, FixOptions, Length, Plan
from vgaudit.repair.selection import rungs, turns

JUDGED = 5000
Draw = Callable[[Arm, int | None], tuple[float, float]]


def plan(trials: int = 8, seeds: int = 3) -> Plan:
    """Returns a plan with as many arms of each family."""
    length = Length(lap=10, count=8)
    arms = tuple(
        Arm(
            name=f"{family} {number}",
            family=family,
            start="as-it-is",
            method="adam",
            lr=0.1,
        )
        for family in FAMILIES
        for number in range(trials)
    )
    return Plan(
        arms=arms,
        rungs=rungs(trials, length),
        search_seed=0,
        seeds=tuple(range(1, seeds + 1)),
        length=length,
        step_seconds={},
        expected=0.0,
    )


def played(made: Plan, draw: Draw) -> list[Attempt]:
    """Returns all attempts of a plan; ``draw`` gives score and chosen of each."""
    attempts: list[Attempt] = []
    for arm, seed, rung in turns(made, attempts):
        score, chosen = draw(arm, rung)
        length = made.length if rung is None else made.rungs[rung].length
        attempts.append(
            Attempt(
                arm=arm.name,
                seed=seed,
                rung=rung,
                run=None,
                score=score,
                chosen=chosen,
                steps=length.steps,
                seconds=0.0,
            )
        )
    return attempts


def fixing(made: Plan, attempts: list[Attempt], *, floor: float = 0.1) -> Fixing:
    """Returns a repair that is finished but not judged."""
    return Fixing(
        options=FixOptions(),
        status="interrupted",
        reason="",
        metric="accuracy",
        base=0.0,
        chance=floor,
        judged=JUDGED,
        plan=made,
        attempts=tuple(attempts),
    )


def proofs(scores: Mapping[str, tuple[float, float, float]]) -> Fixing:
    """Returns a repair of one arm a family, whose proofs have these scores."""
    made = plan(trials=1)
    waiting = {family: list(found) for family, found in scores.items()}

    def draw(arm: Arm, _rung: int | None) -> tuple[float, float]:
        score = waiting[arm.family].pop(0)
        return score, score

    return fixing(made, played(made, draw))
