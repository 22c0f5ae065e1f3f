"""What a repair is asked, what it tried, and what that showed: plain values, no torch.

Treatments and both controls are searched alike; the best of each is then trained anew
with seeds that no choice has seen. Only those trainings are evidence, so the choice of
the best of several needs no correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vgaudit.estimates import Estimate, estimate
from vgaudit.flow import Audit, GradientFlow
from vgaudit.retraining import Run, Split

Start = Literal["as-it-is", "reinit", "rescale", "ar", "adact"]
STARTS: tuple[Start, ...] = ("as-it-is", "reinit", "rescale", "ar", "adact")
Family = Literal["treatment", "sweep", "random"]
FAMILIES: tuple[Family, ...] = ("treatment", "sweep", "random")
CONTROLS: tuple[Family, ...] = ("sweep", "random")
TITLES: dict[Family, str] = {
    "treatment": "treatments",
    "sweep": "learning rates of the plain model",
    "random": "random repairs",
}
Status = Literal["healthy", "repaired", "control", "unproven", "nothing", "interrupted"]

FEWEST_SEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FixOptions:
    """How to repair.

    Attributes:
        budget: seconds of wall-clock time for all trainings together.
        seeds: fresh trainings of the best treatment and of each best control; at
            least three.
        trials: treatments to search at most; the sweep and random repair get as many.
        batch_size: samples of one optimizer step; None for 64.
        valid_split: share of the samples held out; half of them choose epochs and
            arms, the other half are looked at once, to judge.
        most_steps: optimizer steps of one training beyond which nothing is gained by
            more time; None for 30 passes over the data.
        seed: of the split, of the orders and of what is drawn.
        no_trial: a model that no finding fails is called healthy on the scan's word.
    """

    budget: float = 600.0
    seeds: int = FEWEST_SEEDS
    trials: int = 8
    batch_size: int | None = None
    valid_split: float = 0.2
    most_steps: int | None = None
    seed: int = 0
    no_trial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to begin and to train: a treatment, or a control beside it.

    Attributes:
        name: unique, such as ``rescale + adam, lr 0.01``.
        family: what it counts as.
        start: what is done to the model before it trains.
        method: of ``vgaudit retrain``.
        lr: None takes the method's own.
        why: the finding that speaks for it, or what the control stands for.
    """

    name: str
    family: Family
    start: Start
    method: str
    lr: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a training is: ``count`` laps of ``lap`` optimizer steps."""

    lap: int
    count: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.lap * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One round of the search.

    Attributes:
        entrants: arms of each family, the best of the round before.
        length: of each training.
    """

    entrants: int
    length: Length


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was to be run, fixed before the first training began.

    Attributes:
        arms: as many of each family.
        rungs: of the search, which trains with ``search_seed``.
        seeds: of the proof: the best arm of each family trains with each.
        length: of a training of the proof.
        step_seconds: measured, of one step of each arm, by its name.
        expected: seconds for all of it.
        dropped: treatments that were left out, each with the reason.
    """

    arms: tuple[Arm, ...]
    rungs: tuple[Rung, ...]
    search_seed: int
    seeds: tuple[int, ...]
    length: Length
    step_seconds: dict[str, float]
    expected: float
    dropped: tuple[str, ...] = ()

    def of(self, family: Family) -> tuple[Arm, ...]:
        """Returns the arms of one family, in order."""
        return tuple(arm for arm in self.arms if arm.family == family)

    def arm(self, name: str) -> Arm:
        """Returns the arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def steps(self) -> int:
        """Optimizer steps of one whole training."""
        return self.length.steps

    @property
    def trainings(self) -> int:
        """How many there are, search and proof."""
        search = sum(rung.entrants for rung in self.rungs)
        return len(FAMILIES) * (search + len(self.seeds))

    @property
    def family_steps(self) -> int:
        """Optimizer steps that each family takes in all."""
        search = sum(rung.entrants * rung.length.steps for rung in self.rungs)
        return search + len(self.seeds) * self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One training of one arm.

    Attributes:
        arm: its name. seed: of the order, and of what is drawn.
        rung: of the search, from 0; None where it proves.
        run: the record; None where it failed.
        score: of the kept weights on the samples for judging; higher is better.
        chosen: the same on the samples that choose epochs and arms.
        steps: optimizer steps that were taken.
        seconds: with preparation and validation.
        failure: why there is no training; the score is then that of the model as it
            came, which is what would have been kept.
        flow: the gradient after training: of a treatment's last training in the
            search, and of the first of a proof.
    """

    arm: str
    seed: int
    rung: int | None
    run: Run | None
    score: float
    chosen: float
    steps: int
    seconds: float
    failure: str = ""
    flow: GradientFlow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Trainings of the model as it came: the evidence that it is healthy, or is not.

    Attributes:
        arms: the optimizer that the scan is judged for, at its customary learning
            rates; the first that learns ends the trial.
        length: of each training.
        attempts: what was run, on one seed.
        explained: of each, the share by which its loss is below that of the best
            constant answer (its R² in a regression); None where that is not known.
        reason: what it showed, one sentence; empty while it is not finished.
    """

    arms: tuple[Arm, ...]
    length: Length
    attempts: tuple[Attempt, ...] = ()
    explained: tuple[float | None, ...] = ()
    reason: str = ""

    @property
    def seconds(self) -> float:
        """What it took of the budget."""
        return sum(attempt.seconds for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixing:
    """A repair with its evidence.

    Attributes:
        options: what was asked.
        status: ``healthy``: nothing to do, as no finding fails and the model as it
            came was not seen to stay at chance; ``repaired``: the best treatment clears
            both best controls; ``control``: a control is better than nothing, and no
            treatment clears it; ``unproven``: no method is better beyond doubt over
            seeds, but one trained model is, on samples that it has not seen;
            ``nothing``: nothing is; ``interrupted``.
        reason: one sentence.
        findings: codes and names that failed the scan.
        metric: ``accuracy``, ``R²`` or ``loss`` (its negative, so that higher is
            better).
        base: score of the model as it came.
        chance: score of the best constant answer; None where it is not known.
        split: which samples were trained on. judged: how many gave the scores.
        trial: of the model as it came, where no finding failed; None where one did,
            or where no trial was made.
        plan: what was to be run; None for a healthy model.
        attempts: what was run.
        best: name of the best treatment. control: name of the better control.
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
    chance: float | None = None
    split: Split | None = None
    judged: int = 0
    trial: Trial | None = None
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
        """Returns all trainings of an arm, in the order in which they ran."""
        return tuple(attempt for attempt in self.attempts if attempt.arm == arm)

    def proofs(self, arm: str) -> tuple[Attempt, ...]:
        """Returns the trainings of an arm with seeds that no choice has seen."""
        return tuple(attempt for attempt in self.of(arm) if attempt.rung is None)

    def estimate(self, arm: str) -> Estimate:
        """Returns the mean score of an arm over its proofs, with its interval."""
        return estimate([attempt.score for attempt in self.proofs(arm)])

    def finalist(self, family: Family) -> Arm | None:
        """Returns the arm of a family that was put to the proof; None before that."""
        arms = self.plan.of(family) if self.plan is not None else ()
        return next((arm for arm in arms if self.proofs(arm.name)), None)

    @property
    def finalists(self) -> tuple[Arm, ...]:
        """The arms that were put to the proof, the best mean first."""
        arms = self.plan.arms if self.plan is not None else ()
        proven = [arm for arm in arms if self.proofs(arm.name)]
        proven.sort(key=lambda arm: -self.estimate(arm.name).mean)
        return tuple(proven)

    @property
    def floor(self) -> float:
        """The better of the model as it came and of the best constant answer."""
        return max(x for x in (self.base, self.chance, -math.inf) if x is not None)


def keeper(found: Fixing) -> Attempt:
    """Returns the training whose weights are kept, by the samples that choose.

    The best seed of the proof; where nothing was proven, the best training of all.
    """
    lone = found.status == "unproven"
    return first_best(found.attempts if lone else found.proofs(found.kept))


def first_best(attempts: Sequence[Attempt]) -> Attempt:
    """Returns the first of the trainings that chose best; NaN is worst."""
    return max(attempts, key=lambda a: -math.inf if math.isnan(a.chosen) else a.chosen)
