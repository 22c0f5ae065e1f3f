"""One sick model: what ``fix`` makes of it, and what each of its arms reaches."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.detection.build import Spec, build
from benchmarks.detection.grid import load, members
from benchmarks.detection.tasks import task
from vgaudit.api import describe
from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.findings import Optimizer
from vgaudit.fixing import (
    FAMILIES,
    Attempt,
    Family,
    Fixing,
    FixOptions,
    first_best,
    keeper,
)
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.judge import DEFAULT
from vgaudit.repair.fix import Asked, fix, searched
from vgaudit.repair.ledger import Ledger
from vgaudit.retraining import RetrainOptions
from vgaudit.training.campaign import Surroundings
from vgaudit.training.opening import samples_of
from vgaudit.training.task import Task

SICK = ("vanishing", "exploding", "dead")
OPTIONS = FixOptions(budget=1e9, trials=6, seeds=3, valid_split=0.4, most_steps=200)
"""Time plays no part: every training is as long on any machine."""

Row = dict[str, object]


def eligible() -> dict[str, Spec]:
    """Returns the models that repairs are measured on, by name.

    Later draws of the suite came after the repairs had been measured: with them the
    same command would measure others.
    """
    names = frozenset.union(*map(members, ("suite", "fresh", "seen", "unseen")))
    return {spec.name: spec for spec in load() if spec.name in names}


@dataclass(frozen=True, kw_only=True)
class Sick:
    """A model of the suite that does not learn.

    Attributes:
        spec: the model. optimizers: under which the suite says so.
    """

    spec: Spec
    optimizers: tuple[Optimizer, ...]

    @property
    def half(self) -> str:
        """``develop`` or ``report``: a hash of the name, fixed before any run.

        Of the suite's second draw ``second`` and ``unseen``: no repair was settled on
        them, and when repairs were measured, limits of the scan were fitted on the
        first alone.
        """
        if self.spec.name in members("unseen"):
            return "unseen"
        if self.spec.name in members("seen"):
            return "second"
        digest = zlib.crc32(b"repair:" + self.spec.name.encode())
        return "report" if digest & 1 else "develop"


def repaired(sick: Sick) -> Row:
    """Returns what became of one model, as plain data."""
    torch.set_num_threads(1)
    began = time.thread_time()
    try:
        done = fix(
            asked(sick.spec, sick.optimizers[0]), Ledger(None), Surroundings()
        ).fixing
    except CannotRun as error:
        # No arm can take a step: nothing is repaired, and nothing could be.
        done = Fixing(options=OPTIONS, status="nothing", reason=error.message)
    tried = done
    if done.plan is None:
        # It is left alone: what the arms reach all the same says whether it is a miss.
        tried = _forced(asked(sick.spec, sick.optimizers[0]), done)
    return {
        "name": sick.spec.name,
        "half": sick.half,
        "sick": list(sick.optimizers),
        "family": sick.spec.family,
        "status": done.status,
        "reason": done.reason,
        "findings": list(done.findings),
        "trial": done.trial.reason if done.trial is not None else "",
        "kept": done.kept,
        "kept_family": _family(done),
        "base": tried.base,
        "chance": tried.chance,
        "final": keeper(done).score if done.kept else None,
        "shown": _shown(done),
        "arms": {family: _arms(tried, family) for family in FAMILIES},
        "steps": tried.plan.family_steps if tried.plan else 0,
        "dropped": list(tried.plan.dropped) if tried.plan else [],
        "seconds": round(time.thread_time() - began, 1),
    }


def asked(spec: Spec, optimizer: Optimizer) -> Asked:
    """Returns the repair of a model of the suite, judged for an optimizer."""
    model, data = build(spec), task(spec.task)
    x = data.x.to(getattr(torch, spec.dtype))
    opened = Task(
        model=model,
        target=describe(model),
        samples=samples_of((x, data.y), model, DataOptions(), lambda _sentence: None),
        data=DataOptions(),
        probe=ProbeOptions(),
        options=RetrainOptions(method="adam"),
    )
    policy = dataclasses.replace(DEFAULT, optimizer=optimizer)
    # One seed for all would let random repair draw the same treatments for all.
    seed = zlib.crc32(b"draws:" + spec.name.encode()) % 10_000
    options = dataclasses.replace(OPTIONS, seed=seed)
    return Asked(task=opened, options=options, policy=policy)


def _shown(done: Fixing) -> float | None:
    """Returns what a model reached in its trial that ``fix`` calls healthy."""
    if done.status != "healthy" or done.trial is None:
        return None
    return done.trial.attempts[-1].score


def _forced(again: Asked, done: Fixing) -> Fixing:
    try:
        return searched(again, Ledger(None), Surroundings())
    except (CannotRewrite, CannotRun):
        return done


def _family(done: Fixing) -> str:
    return done.plan.arm(done.kept).family if done.plan and done.kept else ""


def _arms(done: Fixing, family: Family) -> Row:
    """Returns every score of a family; of the proof also which seed it would keep."""
    arms = done.plan.of(family) if done.plan else ()
    own = [attempt for arm in arms for attempt in done.of(arm.name)]
    proofs = [attempt for attempt in own if attempt.rung is None]
    return {
        "finalist": proofs[0].arm if proofs else "",
        "kept": first_best(proofs).score if proofs else None,
        "proofs": [attempt.score for attempt in proofs],
        "first": dict(_scores(own, 0)),
        "second": dict(_scores(own, 1)),
    }


def _scores(attempts: list[Attempt], rung: int) -> Iterator[tuple[str, float]]:
    for attempt in attempts:
        if attempt.rung == rung:
            yield attempt.arm, attempt.score
