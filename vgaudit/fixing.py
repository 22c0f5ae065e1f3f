"""What a repair is asked, what it tried, and what that showed: plain values, no torch.

A candidate counts as an improvement only where its interval over seeds clears that of
the best control; everything that decides so is in this module.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vgaudit.flow import Audit, GradientFlow
from vgaudit.retraining import Run, Split

Start = Literal["as-it-is", "reinit", "rescale", "ar", "adact"]
STARTS: tuple[Start, ...] = ("as-it-is", "reinit", "rescale", "ar", "adact")
Role = Literal["candidate", "control"]
Status = Literal["healthy", "repaired", "control", "nothing", "interrupted"]

FEWEST_SEEDS = 3
LEVEL = 0.95
"""Of every interval, on both sides together."""

TIE = 0.01
"""Share of the control's residual error below which a gain counts as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixOptions:
    """How to repair.

    Attributes:
        budget: seconds of wall-clock time for all trainings together.
        seeds: trainings of each arm; at least three.
        batch_size: samples of one optimizer step; None for 64.
        valid_split: share of the samples held out; half of them choose the epoch that
            is kept, the other half are looked at once, to judge.
        most_steps: optimizer steps of one training beyond which nothing is gained by
            more time; None for 30 passes over the data.
        seed: of the split, of the orders and of what is drawn.
    """

    budget: float = 600.0
    seeds: int = FEWEST_SEEDS
    batch_size: int | None = None
    valid_split: float = 0.2
    most_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to begin and to train: a candidate, or a control beside it.

    Attributes:
        name: unique, such as ``rescale + adam`` or ``plain adam, lr 0.001``.
        role: what it counts as.
        start: what is done to the model before it trains.
        method: of ``vgaudit retrain``.
        lr: None takes the method's own.
        why: the finding that speaks for it, or what the control stands for.
        drawn: what is done is drawn anew with every seed (random repair).
    """

    name: str
    role: Role
    start: Start
    method: str
    lr: float | None = None
    why: str = ""
    drawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was to be run, fixed before the first training began.

    Attributes:
        arms: candidates, then controls. seeds: of every arm.
        draws: trainings of random repair, each with a seed and a treatment of its
            own: as many as those of all candidates together.
        steps: optimizer steps of every training. laps: validations during it.
        step_seconds: measured, of one step of each arm, by its name.
        expected: seconds for all of it.
        dropped: candidates that were left out, each with the reason.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    draws: int
    steps: int
    laps: int
    step_seconds: dict[str, float]
    expected: float
    dropped: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[tuple[Arm, int], ...]:
        """Every training, as its arm and its seed, in the order in which they run."""
        common = [(arm, seed) for seed in self.seeds for arm in self.arms]
        first = self.seeds[0]
        more = range(first + len(self.seeds), first + self.draws)
        drawn = [(arm, seed) for arm in self.arms if arm.drawn for seed in more]
        return (*common, *drawn)

    @property
    def trainings(self) -> int:
        """How many there are, all arms and seeds."""
        return len(self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One training of one arm.

    Attributes:
        arm: its name. seed: of the order, and of what is drawn.
        run: the record; None where it failed.
        score: of the kept weights on the samples for judging; higher is better.
        chosen: the same on the samples that chose the epoch.
        steps: optimizer steps that were taken.
        seconds: with preparation and validation.
        did: what was drawn, where it is.
        failure: why there is no training; the score is then that of the model as it
            came, which is what would have been kept.
        flow: the gradient after training, of the first seed alone.
    """

    arm: str
    seed: int
    run: Run | None
    score: float
    chosen: float
    steps: int
    seconds: float
    did: str = ""
    failure: str = ""
    flow: GradientFlow | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its interval; ``half`` is infinite for one value."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixing:
    """A repair with its evidence.

    Attributes:
        options: what was asked.
        status: ``healthy``: nothing to do; ``repaired``: the winner clears the best
            control; ``control``: a control is better than the model as it came, and
            nothing clears it; ``nothing``: nothing is; ``interrupted``.
        reason: one sentence.
        findings: codes and names that failed the scan.
        metric: ``accuracy``, ``R²`` or ``loss`` (its negative, so that higher is
            better).
        base: score of the model as it came.
        split: which samples were trained on. judged: how many gave the scores.
        plan: what was to be run; None for a healthy model.
        attempts: what was run.
        best: name of the best candidate. control: name of the best control.
        kept: name of the arm whose weights were kept, or empty.
        before, after: the same scan of the model as it came and as it is kept.
        advice: what is recommended without evidence, one sentence each.
        early: why it is not finished, or empty. folder: from which to resume.
        written: files. notes: statements for the user. seconds: spent on trainings.
    """

    options: FixOptions
    status: Status
    reason: str
    findings: tuple[str, ...] = ()
    metric: str = ""
    base: float | None = None
    split: Split | None = None
    judged: int = 0
    plan: Plan | None = None
    attempts: tuple[Attempt, ...] = ()
    best: str = ""
    control: str = ""
    kept: str = ""
    before: Audit | None = None
    after: Audit | None = None
    advice: tuple[str, ...] = ()
    early: str = ""
    folder: str = ""
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    def of(self, arm: str) -> tuple[Attempt, ...]:
        """Returns the trainings of an arm."""
        return tuple(attempt for attempt in self.attempts if attempt.arm == arm)

    def estimate(self, arm: str) -> Estimate:
        """Returns the mean score of an arm over its seeds, with its interval."""
        return estimate([attempt.score for attempt in self.of(arm)])


def estimate(scores: Sequence[float]) -> Estimate:
    """Returns the mean of independent scores with Student's interval at ``LEVEL``.

    Raises:
        ValueError: there is none.
    """
    if not scores:
        raise ValueError("no score")
    mean = math.fsum(scores) / len(scores)
    if len(scores) < 2 or not math.isfinite(mean):
        return Estimate(mean, math.inf, len(scores))
    error = statistics.stdev(scores) / math.sqrt(len(scores))
    return Estimate(mean, quantile(len(scores) - 1) * error, len(scores))


def quantile(freedom: int, level: float = LEVEL) -> float:
    """Returns t with P(|T| ≤ t) = ``level`` for Student's t.

    Source: the finite sums for whole degrees of freedom, Abramowitz & Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4; solved by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _inside(middle, freedom) < level else (low, middle)
        )
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _inside(angle: float, freedom: int) -> float:
    """Returns P(|T| ≤ √ν·tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    even = freedom % 2 == 0
    term, total = (1.0, 1.0) if even else (cosine, cosine)
    for k in range(2 if even else 3, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if even:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))


def clears(winner: Estimate, other: Estimate, *, metric: str, judged: int) -> bool:
    """Tells whether a candidate is better than a control beyond doubt.

    Their intervals over seeds must not touch. That says nothing about the samples,
    which are the same for all: so the difference must also exceed the 95 % interval
    that their number leaves to an accuracy (two independent binomials, on the safe
    side), or one per cent of the control's residual error.
    """
    if not winner.low > other.high:
        return False
    gain = winner.mean - other.mean
    if metric == "accuracy":
        shares = [min(max(x, 0.0), 1.0) for x in (winner.mean, other.mean)]
        variance = math.fsum(x * (1.0 - x) for x in shares)
        return gain > 1.96 * math.sqrt(variance / max(judged, 1))
    residual = 1.0 - other.mean if metric == "R²" else -other.mean
    return gain > TIE * abs(residual)
