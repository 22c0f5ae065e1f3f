"""All trainings of a repair, one after the other; finished ones are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from vgaudit.conversion import Edit
from vgaudit.fixing import Arm, Attempt, Fixing, FixOptions, Plan
from vgaudit.repair.bench import Bench, Made, Turn
from vgaudit.repair.ledger import Finished, Ledger
from vgaudit.repair.planning import planned, sentence
from vgaudit.repair.selection import turns
from vgaudit.repair.verdict import first_best, keeper
from vgaudit.repair.watching import Stoppable
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import Interrupted
from vgaudit.training.weights import digest, put, snapshot

LONE = "best of all"
"""Under this name the weights are kept that choose best, of whichever arm."""


class Series:
    """Searches and proves, from where it was left.

    Args:
        bench: what all trainings share. wanted: the treatments, likeliest first.
        options: budget, seeds, trials.
        ledger: of what is finished. around: signals and progress.
    """

    def __init__(
        self,
        bench: Bench,
        wanted: Sequence[Arm],
        options: FixOptions,
        ledger: Ledger,
        around: Surroundings,
    ) -> None:
        self._bench, self._wanted, self._options = bench, wanted, options
        self._ledger, self._around = ledger, around
        self.early = ""

    def run(self) -> Finished:
        """Runs what is not finished; ``early`` says why it stopped before the end."""
        done, plan = self._begun()
        watcher = Stoppable(self._around)
        finished = {(a.arm, a.seed, a.rung) for a in done.attempts}
        for number, (arm, seed, rung) in enumerate(turns(plan, done.attempts), start=1):
            if (arm.name, seed, rung) in finished:
                continue
            place = f"{number} of {plan.trainings}: {arm.name}" + (
                "" if rung is not None else f", fresh seed {seed}"
            )
            self._around.say(f"training {place}")
            length = plan.length if rung is None else plan.rungs[rung].length
            turn = Turn(arm=arm, seed=seed, rung=rung, length=length)
            try:
                made = self._bench.train(turn, watcher)
            except Interrupted:
                self.early = f"interrupted in training {place}"
                break
            self._note(done, plan, arm, made)
        return done

    def _begun(self) -> tuple[Finished, Plan]:
        """Returns what is finished, and the plan, which is made once."""
        bench, say = self._bench, self._around.say
        identity = identity_of(bench, self._options)
        done = self._ledger.begun(identity, resume=self._around.resume)
        if done.plan is not None:
            say(sentence(done.plan, self._options))
            return done, done.plan
        spent = done.trial.seconds if done.trial is not None else 0.0
        left = dataclasses.replace(self._options, budget=self._options.budget - spent)
        done.plan = planned(bench, self._wanted, left, say)
        self._ledger.write(done)
        return done, done.plan

    def _note(self, done: Finished, plan: Plan, arm: Arm, made: Made) -> None:
        """Keeps a finished training: the weights first, then the line that counts."""
        attempt = made.attempt
        if not attempt.failure:
            self._keep(done, made)
            if _measured(plan, arm, attempt):
                flow = self._bench.flow_of(made.model)
                attempt = dataclasses.replace(attempt, flow=flow)
        done.attempts.append(attempt)
        self._ledger.write(done)

    def _keep(self, done: Finished, made: Made) -> None:
        """Keeps weights that nothing finished was better than: of an arm, of all."""
        attempt = made.attempt
        own = [a for a in done.attempts if a.arm == attempt.arm and a.rung is None]
        if attempt.rung is None and _leads(attempt, own):
            self._ledger.keep(attempt.arm, snapshot(made.model))
        if _leads(attempt, done.attempts):
            self._ledger.keep(LONE, snapshot(made.model))

    def kept(self, found: Fixing) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Returns the model that is kept, as it was trained."""
        best = keeper(found)
        assert found.plan is not None
        model, edits = self._bench.start(found.plan.arm(found.kept), best.seed)
        place = LONE if found.status == "unproven" else found.kept
        put(model, self._ledger.weights(place))
        return model, edits


def _leads(attempt: Attempt, others: Sequence[Attempt]) -> bool:
    """Tells whether a training is the first of the best, of those and itself."""
    return first_best([*others, attempt]) is attempt


def _measured(plan: Plan, arm: Arm, attempt: Attempt) -> bool:
    """Tells whether the gradient after a training is shown: treatments, and proofs."""
    if attempt.rung is None:
        return attempt.seed == plan.seeds[0]
    return arm.family == "treatment"


def identity_of(bench: Bench, options: FixOptions) -> dict[str, str]:
    """Returns what must be the same for a resumed repair to be the same one."""
    return {
        "weights of the model": digest(bench.model)[:16],
        "data": bench.fed.train.spec,
        "training samples": str(bench.fed.split.train),
        "loss": bench.loss.name,
        "device": bench.device.type,
        **{
            f"--{name.replace('_', '-')}": str(value)
            for name, value in dataclasses.asdict(options).items()
        },
    }
