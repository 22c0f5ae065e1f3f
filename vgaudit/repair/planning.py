"""From a budget in seconds to a number of steps: each arm is timed, then all agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from vgaudit.errors import CannotRewrite, CannotRun, VgauditError
from vgaudit.fixing import Arm, FixOptions, Plan
from vgaudit.plain import visible
from vgaudit.repair.bench import Bench, Length, Turn
from vgaudit.repair.candidates import controls
from vgaudit.retraining import Progress
from vgaudit.rules.wording import count

TIMED = 3
"""Steps that are timed; the first of them does not count."""

LAPS = 10
FEWEST_STEPS = 100
"""Below this, candidates are dropped rather than steps."""

PASSES = 30
SPARE = 0.9
"""Share of the budget that is planned: timings waver."""

Say = Callable[[str], None]


@dataclass(slots=True)
class _Stopwatch:
    """Notes when each step was done."""

    at: list[float] = field(default_factory=list)

    def step(self, progress: Progress) -> None:
        """Notes the time."""
        del progress
        self.at.append(time.monotonic())

    def say(self, sentence: str) -> None:
        """Says nothing: the run does not count."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one training: once, for a validation, for each step."""

    once: float
    validation: float
    step: float

    def of(self, length: Length) -> float:
        """Returns the seconds of a training of some length."""
        return (
            self.once + (length.count + 3) * self.validation + length.steps * self.step
        )


def timed(bench: Bench, arm: Arm, seed: int) -> Cost:
    """Returns what a training of an arm costs, by taking a few steps of it.

    Raises:
        CannotRewrite, CannotRun: the arm does not fit the model.
    """
    began = time.monotonic()
    model, _ = bench.start(arm, seed)
    watch = _Stopwatch()
    length = Length(lap=TIMED, count=1)
    turn = Turn(name=arm.name, arm=arm, seed=seed, length=length)
    runner = bench.runner(turn, model, watch)
    runner.run()
    ended = time.monotonic()
    bench.score(runner.model, bench.choosing)
    validation = time.monotonic() - ended
    step = (watch.at[TIMED - 1] - watch.at[0]) / (TIMED - 1)
    once = max(ended - began - 2 * validation - TIMED * step, 0.0)
    return Cost(once, validation, step)


def planned(bench: Bench, wanted: Sequence[Arm], options: FixOptions, say: Say) -> Plan:
    """Returns the arms that fit the budget, and the steps of every training.

    Raises:
        CannotRewrite: no candidate fits the model.
    """
    began = time.monotonic()
    costs, dropped = _timings(bench, wanted, options, say)
    chosen = [arm for arm in wanted if arm.name in costs]
    if not chosen:
        raise CannotRewrite(
            f"no treatment fits the model: {'; '.join(dropped)}",
            hint="`vgaudit scan` names the findings and what to do by hand",
        )
    left = options.budget * SPARE - (time.monotonic() - began)
    most = _most(bench, options)
    while True:
        whole = _whole(bench, chosen, costs, options)
        length = _length(whole.all, left, most)
        if length.steps >= min(FEWEST_STEPS, most):
            break
        if len(chosen) == 1:
            say("the budget is small: expect little of so few steps")
            break
        dropped.append(f"{chosen.pop().name}: no time in the budget")
    plan = Plan(
        arms=whole.arms,
        seeds=tuple(options.seed + i for i in range(options.seeds)),
        draws=len(chosen) * options.seeds,
        steps=length.steps,
        laps=length.count,
        step_seconds={arm: cost.step for arm, cost in whole.costs.items()},
        expected=sum(cost.of(length) for cost in whole.all),
        dropped=tuple(dropped),
    )
    say(sentence(plan, options))
    return plan


def sentence(plan: Plan, options: FixOptions) -> str:
    """Returns the plan in words."""
    own = sum(arm.role == "candidate" for arm in plan.arms)
    return (
        f"plan: {count(own, 'candidate')} and "
        f"{count(len(plan.arms) - own, 'control')}, "
        f"{len(plan.seeds)} seeds each, {plan.steps:,} steps a training: "
        f"{count(plan.trainings, 'training')}, about {plan.expected:.0f} s of the "
        f"{options.budget:.0f} s"
    )


def _timings(
    bench: Bench, wanted: Sequence[Arm], options: FixOptions, say: Say
) -> tuple[dict[str, Cost], list[str]]:
    costs: dict[str, Cost] = {}
    dropped = []
    plain = controls(1)[0]
    _plain_cost(bench, plain, {}, options.seed)  # What is loaded once is not timed.
    for arm in wanted:
        say(f"timing {arm.name}")
        try:
            costs[arm.name] = timed(bench, arm, options.seed)
        except (CannotRewrite, CannotRun) as error:
            dropped.append(f"{arm.name}: {visible(error.message, length=160)}")
    return costs, dropped


@dataclass(frozen=True, slots=True)
class _Whole:
    """The arms of a repair; what one training of each costs, and all trainings."""

    arms: tuple[Arm, ...]
    costs: dict[str, Cost]
    all: tuple[Cost, ...]


def _whole(
    bench: Bench, chosen: Sequence[Arm], costs: dict[str, Cost], options: FixOptions
) -> _Whole:
    """Returns candidates with their controls: each kind takes as many trainings."""
    beside = controls(len(chosen))
    plain = _plain_cost(bench, beside[0], costs, options.seed)
    own = [costs[arm.name] for arm in chosen]
    # A draw is any treatment: it costs what they cost on average.
    drawn = Cost(
        fmean(cost.once for cost in own),
        fmean(cost.validation for cost in own),
        fmean(cost.step for cost in own),
    )
    prices = {arm.name: costs[arm.name] for arm in chosen}
    prices |= {arm.name: drawn if arm.drawn else plain for arm in beside}
    trainings = [
        prices[arm.name]
        for arm in (*chosen, *beside)
        for _ in range(options.seeds * (len(chosen) if arm.drawn else 1))
    ]
    return _Whole((*chosen, *beside), prices, tuple(trainings))


def _plain_cost(bench: Bench, arm: Arm, costs: dict[str, Cost], seed: int) -> Cost:
    """Returns the cost of plain Adam, measured once."""
    if "" not in costs:
        try:
            costs[""] = timed(bench, arm, seed)
        except VgauditError as error:
            raise CannotRun(
                f"the model as it came cannot be trained: {error.message}",
                hint="a repair needs its controls: look at data and loss first",
            ) from error
    return costs[""]


def _most(bench: Bench, options: FixOptions) -> int:
    """Returns the most steps of one training."""
    each = max(len(bench.fed.train_rows) // bench.fed.size, 1)
    return options.most_steps or PASSES * each


def _length(trainings: Sequence[Cost], seconds: float, most: int) -> Length:
    """Returns the greatest length with which all trainings take ``seconds``."""
    fixed = sum(p.once + (LAPS + 3) * p.validation for p in trainings)
    steps = (seconds - fixed) / sum(price.step for price in trainings)
    steps = int(min(max(steps, 1.0), most))
    laps = min(LAPS, steps)
    return Length(lap=steps // laps, count=laps)
