"""Before a model is called healthy: does it train as it came?

The scan judges the first steps. What it does not see (a loss that explodes later, a
plateau that no step leaves) a short training of the plain model shows.
"""

from __future__ import annotations

import dataclasses
import math

from torch import nn

from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.findings import Optimizer
from vgaudit.fixing import Arm, Attempt, Fixing, FixOptions, Length, Trial
from vgaudit.plain import visible
from vgaudit.repair import candidates
from vgaudit.repair.bench import Bench, Made, Turn
from vgaudit.repair.ledger import Finished, Ledger
from vgaudit.repair.planning import FEWEST_STEPS, longest, most_steps, timed
from vgaudit.repair.series import identity_of
from vgaudit.repair.verdict import above, ended
from vgaudit.repair.watching import Stoppable
from vgaudit.rules.wording import count, number, percent
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import Interrupted
from vgaudit.training.metrics import ACCURACY, R_SQUARED, metric_of

RATES: dict[Optimizer, tuple[float, ...]] = {"adam": (1e-3, 3e-3), "sgd": (1e-1, 1e-2)}
"""Customary learning rates; the first that learns ends the trial."""

STEPS = 200
"""Optimizer steps of one training at most: most models learn something in as many."""

SHARE = 0.1
"""Of the budget, for all trainings of the trial together."""

LEARNS = 0.05
"""Share of a constant answer's loss that is explained by what has begun to learn."""

KNOWS = 0.3
"""Share of it, or of its errors, from which a model needs no trial."""


class Trials:
    """Trains the model as it came, from where that was left.

    Args:
        bench: what all trainings share. options: the budget.
        ledger: of what is finished. around: signals and progress.
    """

    def __init__(
        self, bench: Bench, options: FixOptions, ledger: Ledger, around: Surroundings
    ) -> None:
        self._bench, self._options = bench, options
        self._ledger, self._around = ledger, around

    def run(self, found: Fixing, optimizer: Optimizer) -> Fixing:
        """Returns a healthy diagnosis with its evidence, or one that is to be treated.

        Args:
            found: healthy by the scan, with the reason.
            optimizer: that the scan was judged for.

        Raises:
            VgauditError: the model as it came cannot be scored.
        """
        bench = self._bench
        said = found.reason
        found = dataclasses.replace(
            found,
            metric=metric_of(bench.loss) or "loss",
            base=bench.base(),
            chance=bench.chance(),
            judged=len(bench.judging),
        )
        known = self._known(found)
        if known:
            return ended(found, "healthy", f"{said}, and {known}; no trial was needed")
        found, early = self._trained(found, optimizer)
        if early:
            found = ended(found, "interrupted", early)
            return dataclasses.replace(found, early=early)
        trial = found.trial
        assert trial is not None
        if learned(found):
            return ended(found, "healthy", f"{said}, and {trial.reason}")
        unsure = self._unsure(found, trial)
        if unsure:
            return ended(found, "healthy", f"{said}; {unsure}: {trial.reason}")
        return ended(found, "interrupted", "")

    def _known(self, found: Fixing) -> str:
        """Returns why no trial is needed, or can tell anything; empty otherwise."""
        if found.metric == ACCURACY and found.chance is not None:
            if found.chance >= 1.0:
                return "all samples that judge have the same label, so none could tell"
            assert found.base is not None
            right = (found.base - found.chance) / (1.0 - found.chance)
        else:
            right = 0.0
        share = self._explained(self._bench.model) or 0.0
        if max(right, share) < KNOWS:
            return ""
        return f"as it came it is above chance: {_reached(found, found.base, share)}"

    def _trained(self, found: Fixing, optimizer: Optimizer) -> tuple[Fixing, str]:
        """Returns the diagnosis with its trial, and why that is not finished."""
        done = self._begun(optimizer)
        watcher = Stoppable(self._around)
        split = self._bench.fed.split
        while True:
            assert done.trial is not None
            found = dataclasses.replace(
                found,
                trial=done.trial,
                split=split,
                seconds=done.trial.seconds,
                notes=self._bench.fed.train.notes,
            )
            tried = len(done.trial.attempts)
            if learned(found) or tried == len(done.trial.arms):
                break
            arm = done.trial.arms[tried]
            place = f"the trial of the model as it came: {arm.name}"
            self._around.say(f"training {place}")
            length = done.trial.length
            # As torch's optimizers are without a scheduler; that also leaves a plateau
            # sooner than a rate that falls.
            turn = Turn(
                arm=arm,
                seed=self._options.seed,
                rung=None,
                length=length,
                schedule="constant",
            )
            try:
                made = self._bench.train(turn, watcher)
            except Interrupted:
                return found, f"interrupted in {place}"
            self._note(done, made)
        trial = dataclasses.replace(done.trial, reason=_shown(found, done.trial))
        return dataclasses.replace(found, trial=trial), ""

    def _begun(self, optimizer: Optimizer) -> Finished:
        """Returns what is finished; how long a training is, is settled once."""
        bench = self._bench
        identity = identity_of(bench, self._options)
        done = self._ledger.begun(identity, resume=self._around.resume)
        if done.trial is None:
            arms = tuple(
                candidates.plain(optimizer, rate, "does it train as it came?")
                for rate in RATES[optimizer]
            )
            self._around.say("timing the model as it came")
            done.trial = Trial(arms=arms, length=self._length(arms))
            self._ledger.write(done)
        return done

    def _length(self, arms: tuple[Arm, ...]) -> Length:
        most = min(STEPS, most_steps(self._bench, self._options))
        try:
            # What is loaded once is not timed.
            timed(self._bench, arms[0], self._options.seed)
            cost = timed(self._bench, arms[0], self._options.seed)
        except (CannotRewrite, CannotRun):
            return longest(lambda _length: True, most)  # It ends at once.
        each = self._options.budget * SHARE / len(arms)
        return longest(lambda length: cost.of(length) <= each, most)

    def _unsure(self, found: Fixing, trial: Trial) -> str:
        """Returns why a trial in which nothing was learned tells nothing, or nothing.

        There was too little time; or the loss, with which no constant answer can be
        compared, does not fall because it fell before the model came.
        """
        most = longest(lambda _: True, most_steps(self._bench, self._options)).steps
        if trial.length.steps < min(FEWEST_STEPS, most):
            return (
                "the trial, which may take a tenth of the budget, was too short to "
                "tell whether it trains (a larger --budget gives it more)"
            )
        if found.metric != "loss" or found.base is None:
            return ""
        own, strangers = -found.base, self._bench.strangers_loss()
        if strangers is None or not strangers - own >= KNOWS * abs(strangers):
            return ""
        return (
            "it seems to be trained, so the trial tells nothing: as it came its loss "
            f"is {number(own)} with its own labels and {number(strangers)} with those "
            "of other samples"
        )

    def _explained(self, model: nn.Module) -> float | None:
        """Returns the share that a model explains of what a constant answer leaves."""
        scores = self._bench.scores(model, self._bench.judging)
        constant = self._bench.constant_loss()
        if metric_of(self._bench.loss) == R_SQUARED:
            share = scores.metric
        else:
            share = None if constant is None else 1.0 - scores.loss / constant
        return share if share is not None and math.isfinite(share) else None

    def _note(self, done: Finished, made: Made) -> None:
        assert done.trial is not None
        attempt = self._steady(made)
        share = None if attempt.failure else self._explained(made.model)
        done.trial = dataclasses.replace(
            done.trial,
            attempts=(*done.trial.attempts, attempt),
            explained=(*done.trial.explained, share),
        )
        self._ledger.write(done)

    def _steady(self, made: Made) -> Attempt:
        """Returns an attempt; what learns a little and then diverges has failed.

        A repair may deliver the epoch before that. But the trial asks whether the
        model trains as it came, and such a model does not.
        """
        attempt = made.attempt
        if not made.diverged:
            return attempt
        why = f"{attempt.arm}: it diverged after {count(attempt.steps, 'step')}"
        return dataclasses.replace(
            attempt, run=None, score=self._bench.base(), chosen=-math.inf, failure=why
        )


def learned(found: Fixing) -> bool:
    """Tells whether the last training of a trial has brought the model above chance.

    Its loss (or its squared error) must be below that of a constant answer, or its
    accuracy above it beyond doubt. The loss shows learning where one class is so
    frequent that no accuracy can. Of a loss alone it is known that it falls, no more.
    """
    trial = found.trial
    if trial is None or not trial.attempts or trial.attempts[-1].failure:
        return False
    share = trial.explained[-1]
    if share is not None and share >= LEARNS:
        return True
    return found.metric != R_SQUARED and above(found, trial.attempts[-1].score)


def _shown(found: Fixing, trial: Trial) -> str:
    """Returns what a finished trial has shown, in words."""
    last, steps = trial.attempts[-1], count(trial.length.steps, "step")
    if learned(found):
        way = _way(trial, last)
        if len(trial.attempts) > 1:
            way += f", though not {_way(trial, trial.attempts[0])},"
        if found.metric == "loss":
            fall = f"from {_score(found, found.base)} to {_score(found, last.score)}"
            return f"trained for {steps} {way} its loss falls {fall}"
        reached = _reached(found, last.score, trial.explained[-1])
        return f"trained for {steps} {way} it reaches {reached}"
    stays = "its loss does not fall" if found.metric == "loss" else "it stays at chance"
    failed = all(attempt.failure for attempt in trial.attempts)
    ends = ", ".join(_end(found, trial, attempt) for attempt in trial.attempts)
    beside = [("as it came", found.base), ("best constant answer", found.chance)]
    known = ", ".join(
        f"{name} {_score(found, score)}" for name, score in beside if score is not None
    )
    return f"{'' if failed else f'trained for {steps} '}{stays}: {ends} ({known})"


def _end(found: Fixing, trial: Trial, attempt: Attempt) -> str:
    """Returns what one training came to that did not learn."""
    way = _way(trial, attempt)
    if attempt.failure:
        why = attempt.failure.removeprefix(f"{attempt.arm}: ").split("the last: ")[-1]
        return f"nothing {way}, as {visible(why, length=80)}"
    return f"{_score(found, attempt.score)} {way}"


def _way(trial: Trial, attempt: Attempt) -> str:
    arm = next(arm for arm in trial.arms if arm.name == attempt.arm)
    return f"by {arm.method} at lr {arm.lr:.2g}"


def _reached(found: Fixing, score: float | None, share: float | None) -> str:
    """Returns a score beside that of the best constant answer."""
    text = _score(found, score)
    if found.chance is None:
        return text
    text = f"{text} (best constant answer {_score(found, found.chance)})"
    if found.metric != ACCURACY or score is None or share is None or share < LEARNS:
        return text
    # Where one class is almost everything, the accuracy alone would say little.
    plain = score - found.chance >= KNOWS * (1.0 - found.chance)
    return text if plain else f"{text}, its loss {percent(share)} below that answer's"


def _score(found: Fixing, score: float | None) -> str:
    if score is None or not math.isfinite(score):
        return "no number"
    if found.metric == ACCURACY:
        return f"{100 * score:.1f} %"
    return f"R² {number(score)}" if found.metric == R_SQUARED else number(-score)
