"""Successive halving: who goes on, and what a tie is decided by."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tests.fixing.made import plan, played
from vgaudit.fixing import Arm, Length
from vgaudit.repair.selection import entrants, rank, rungs
from vgaudit.retraining import Epoch, Run

LENGTH = Length(lap=5, count=8)


@pytest.mark.parametrize(
    ("trials", "wanted"),
    [
        (1, []),
        (2, [(2, 10)]),
        (4, [(4, 10)]),
        (5, [(5, 10), (2, 40)]),
        (8, [(8, 10), (2, 40)]),
        (12, [(12, 10), (3, 40)]),
    ],
)
def test_rounds(trials: int, wanted: list[tuple[int, int]]) -> None:
    assert [(r.entrants, r.length.steps) for r in rungs(trials, LENGTH)] == wanted


def test_the_best_of_each_family_go_on_and_judging_scores_play_no_part() -> None:
    made = plan(trials=8)
    chosen = {arm.name: (int(arm.name[-1]) * 3) % 8 / 10 for arm in made.arms}

    def draw(arm: Arm, _rung: int | None) -> tuple[float, float]:
        return 1.0 - chosen[arm.name], chosen[arm.name]

    attempts = played(made, draw)

    # 3 · 5 mod 8 = 7 and 3 · 2 mod 8 = 6 are the greatest of all.
    for family in ("treatment", "sweep", "random"):
        second = [a.arm for a in attempts if a.rung == 1 and a.arm.startswith(family)]
        last = {a.arm for a in attempts if a.rung is None and a.arm.startswith(family)}
        assert second == [f"{family} 5", f"{family} 2"]
        assert last == {f"{family} 5"}


def test_a_proof_waits_for_the_whole_search() -> None:
    made = plan(trials=4)
    attempts = played(made, lambda _arm, _rung: (0.5, 0.5))
    cut = [a for a in attempts if a.rung == 0][:6]

    assert {arm.family for arm in entrants(made, cut, 1)} <= {"treatment", "sweep"}
    assert [a.rung is None for a in attempts] == [False] * 12 + [True] * 9


def _run(loss: float) -> Run:
    epoch = Epoch(
        number=0,
        steps=0,
        train_loss=None,
        valid_loss=loss,
        metric=None,
        lr=None,
        seconds=0.0,
    )
    return Run(name="", epochs=(epoch,), best=0)


def test_ties_are_decided_by_who_was_sooner_and_then_by_the_loss() -> None:
    made = plan(trials=1)
    base = played(made, lambda _arm, _rung: (0.5, 0.5))[0]

    def trained(chosen: float, loss: float = 1.0):
        return dataclasses.replace(base, chosen=chosen, run=_run(loss))

    assert rank([trained(0.2), trained(0.9)]) < rank([trained(0.3), trained(0.8)])
    assert rank([trained(0.3), trained(0.9)]) < rank([trained(0.2), trained(0.9)])
    assert rank([trained(0.4, 0.7)]) < rank([trained(0.4, 0.8)])
    assert rank([trained(0.4, 0.8)]) < rank([trained(0.4, math.nan)])
    assert rank([trained(0.0)]) < rank([trained(math.nan)])
