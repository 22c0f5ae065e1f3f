"""From a budget in seconds to a number of steps: each arm is timed, then all agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median

from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.fixing import FAMILIES, STARTS, Arm, FixOptions, Length, Plan, Start
from vgaudit.plain import visible
from vgaudit.repair import candidates
from vgaudit.repair.bench import Bench, Turn
from vgaudit.repair.selection import rungs
from vgaudit.retraining import Progress
from vgaudit.rules.wording import count

TIMED = 4
"""Steps that are timed; the first does not count, and of the others the median."""

LAPS = 8
"""Validations of a training."""

FEWEST_STEPS = 100
"""Below this, treatments are dropped rather than steps."""

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


@dataclass(frozen=True, slots=True)
class Prices:
    """What one training costs on average, by family; and each arm by its name."""

    families: tuple[Cost, ...]
    arms: dict[str, Cost]

    def whole(self, trials: int, seeds: int, length: Length) -> float:
        """Returns the seconds of a repair: each family searches and proves."""
        search = [(r.entrants, r.length) for r in rungs(trials, length)]
        return sum(
            number * cost.of(each)
            for cost in self.families
            for number, each in (*search, (seeds, length))
        )


def timed(bench: Bench, arm: Arm, seed: int) -> Cost:
    """Returns what a training of an arm costs, by taking a few steps of it.

    Raises:
        CannotRewrite, CannotRun: the arm does not fit the model.
    """
    began = time.monotonic()
    model, _ = bench.start(arm, seed)
    watch = _Stopwatch()
    turn = Turn(arm=arm, seed=seed, rung=0, length=Length(lap=TIMED, count=1))
    runner = bench.runner(turn, model, watch)
    runner.run()
    ended = time.monotonic()
    bench.score(runner.model, bench.choosing)
    validation = time.monotonic() - ended
    # The clock ticks once more, after the validation.
    steps = pairwise(watch.at[:TIMED])
    step = median(later - before for before, later in steps)
    once = max(ended - began - 2 * validation - TIMED * step, 0.0)
    return Cost(once, validation, step)


def planned(bench: Bench, wanted: Sequence[Arm], options: FixOptions, say: Say) -> Plan:
    """Returns the arms that fit the budget, and the steps of every training.

    Raises:
        CannotRewrite: no treatment fits the model.
        CannotRun: nor can the model itself be trained.
    """
    began = time.monotonic()
    costs, dropped = _timings(bench, wanted, options, say)
    fitting = [arm for arm in wanted if arm.name in costs]
    if not fitting and _plain_cost(bench, options.seed) is None:
        raise CannotRun(
            f"neither the model as it came nor a treated one can be trained: "
            f"{'; '.join(dropped)}",
            hint="look at data and loss first: `vgaudit scan` names what fails",
        )
    if not fitting:
        raise CannotRewrite(
            f"no treatment fits the model: {'; '.join(dropped)}",
            hint="`vgaudit scan` names the findings and what to do by hand",
        )
    plain = _plain_cost(bench, options.seed) or costs[fitting[0].name]
    left = options.budget * SPARE - (time.monotonic() - began)
    most = most_steps(bench, options)
    chosen = fitting[: options.trials]
    while True:
        prices = _prices(chosen, costs, plain)
        length = _length(prices, len(chosen), options.seeds, left, most)
        if length.steps >= min(FEWEST_STEPS, most):
            break
        if len(chosen) == 1:
            say("the budget is small: expect little of so few steps")
            break
        dropped.append(f"{chosen.pop().name}: no time in the budget")
    starts = {arm.start for arm in fitting}
    allowed = tuple(s for s in STARTS if s == "as-it-is" or s in starts)
    plan = Plan(
        arms=(*chosen, *beside(len(chosen), allowed, options.seed)),
        rungs=rungs(len(chosen), length),
        search_seed=options.seed,
        seeds=tuple(options.seed + i for i in range(1, options.seeds + 1)),
        length=length,
        step_seconds={arm: cost.step for arm, cost in prices.arms.items()},
        expected=prices.whole(len(chosen), options.seeds, length),
        dropped=tuple(dropped),
    )
    say(sentence(plan, options))
    return plan


def beside(trials: int, allowed: Sequence[Start], seed: int) -> tuple[Arm, ...]:
    """Returns both controls, as many arms of each as there are treatments."""
    drawn = candidates.random_repairs(trials, allowed, seed=seed)
    return (*candidates.sweep(trials), *drawn)


def sentence(plan: Plan, options: FixOptions) -> str:
    """Returns the plan in words."""
    each = len(plan.arms) // len(FAMILIES)
    return (
        f"plan: {count(each, 'treatment')}, as many learning rates of the plain model, "
        f"as many random repairs; the best of each again with {len(plan.seeds)} fresh "
        f"seeds: {count(plan.trainings, 'training')} of up to {plan.steps:,} steps, "
        f"about {plan.expected:.0f} s of the {options.budget:.0f} s"
    )


def _timings(
    bench: Bench, wanted: Sequence[Arm], options: FixOptions, say: Say
) -> tuple[dict[str, Cost], list[str]]:
    """Returns the cost of each arm that fits; the learning rate makes no difference."""
    found: dict[tuple[str, str], Cost] = {}
    failed: dict[tuple[str, str], str] = {}
    _plain_cost(bench, options.seed)  # What is loaded once is not timed.
    for arm in wanted:
        way = (arm.start, arm.method)
        if way in found or way in failed:
            continue
        name = candidates.named(arm.start, arm.method, None)
        say(f"timing {name}")
        try:
            found[way] = timed(bench, arm, options.seed)
        except (CannotRewrite, CannotRun) as error:
            failed[way] = f"{name}: {visible(error.message, length=160)}"
    costs = {
        arm.name: found[way]
        for arm in wanted
        if (way := (arm.start, arm.method)) in found
    }
    return costs, list(failed.values())


def _prices(chosen: Sequence[Arm], costs: dict[str, Cost], plain: Cost) -> Prices:
    """Returns prices of all families; a draw costs what treatments do on average."""
    own = [costs[arm.name] for arm in chosen]
    mean = Cost(
        fmean(cost.once for cost in own),
        fmean(cost.validation for cost in own),
        fmean(cost.step for cost in own),
    )
    return Prices((mean, plain, mean), {arm.name: costs[arm.name] for arm in chosen})


def _plain_cost(bench: Bench, seed: int) -> Cost | None:
    """Returns the cost of plain Adam; None where no step of it can be taken.

    That is no reason to stop: a loss of NaN may be what a treatment cures.
    """
    try:
        return timed(bench, candidates.sweep(1)[0], seed)
    except (CannotRewrite, CannotRun):
        return None


def most_steps(bench: Bench, options: FixOptions) -> int:
    """Returns the most steps of one training."""
    each = max(len(bench.fed.train_rows) // bench.fed.size, 1)
    return options.most_steps or PASSES * each


def _length(
    prices: Prices, trials: int, seeds: int, seconds: float, most: int
) -> Length:
    """Returns the greatest length with which a whole repair takes ``seconds``."""
    return longest(lambda each: prices.whole(trials, seeds, each) <= seconds, most)


def longest(fits: Callable[[Length], bool], most: int) -> Length:
    """Returns the greatest length that fits, of one step at least, ``most`` at most."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_in_laps(middle)) else (low, middle - 1)
    return _in_laps(low)


def _in_laps(steps: int) -> Length:
    laps = min(LAPS, steps)
    return Length(lap=steps // laps, count=laps)
