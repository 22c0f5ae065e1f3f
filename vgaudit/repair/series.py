"""All trainings of a repair, in order; finished ones are kept.

Several ranks train as many at once. What they come to is noted in the order of one
process, so that everything that follows from it is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from vgaudit.conversion import Edit
from vgaudit.fixing import (
    Arm,
    Attempt,
    Fixing,
    FixOptions,
    Plan,
    first_best,
    keeper,
)
from vgaudit.repair.bench import Bench, Made, Turn
from vgaudit.repair.ledger import Finished, Ledger
from vgaudit.repair.planning import planned, sentence
from vgaudit.repair.selection import rounds
from vgaudit.repair.sharing import ONE, Sharing
from vgaudit.repair.watching import Stoppable
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import CONTENTS, Interrupted
from vgaudit.training.contents import contents
from vgaudit.training.weights import digest, put, snapshot

LONE = "best of all"
"""Under this name the weights are kept that choose best, of whichever arm."""


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A training to do, and which of all it is, in words."""

    turn: Turn
    place: str


class Series:
    """Searches and proves, from where it was left.

    Args:
        bench: what all trainings share. wanted: the treatments, likeliest first.
        options: budget, seeds, trials.
        ledger: of what is finished; of several ranks only the first needs its folder.
        around: signals and progress. sharing: the ranks.
    """

    def __init__(  # noqa: PLR0913 - a series and who takes part in it
        self,
        bench: Bench,
        wanted: Sequence[Arm],
        options: FixOptions,
        *,
        ledger: Ledger,
        around: Surroundings,
        sharing: Sharing = ONE,
    ) -> None:
        self._bench, self._wanted, self._options = bench, wanted, options
        self._ledger, self._around, self._sharing = ledger, around, sharing
        self.early = ""

    def run(self) -> Finished:
        """Runs what is not finished; ``early`` says why it stopped before the end."""
        done = self._sharing.settled(Finished, self._begun)
        assert done.plan is not None
        for wave in self._waves(done, done.plan):
            made, attempts = self._trained(wave, done.plan)
            for rank, attempt in enumerate(attempts[: len(wave)]):
                if attempt is None:
                    self.early = f"interrupted in training {wave[rank].place}"
                    return done
                own = made if rank == self._sharing.crew.rank else None
                self._note(done, attempt, own, rank)
        return done

    def _waves(self, done: Finished, plan: Plan) -> Iterator[list[_Numbered]]:
        """Yields what is not finished, as many trainings of a round as there are ranks.

        Args:
            done: grows meanwhile.
            plan: of the repair.
        """
        size, before = self._sharing.crew.size, 0
        finished = {(a.arm, a.seed, a.rung) for a in done.attempts}
        for entered in rounds(plan, done.attempts):
            left = []
            for number, (arm, seed, rung) in enumerate(entered, start=before + 1):
                if (arm.name, seed, rung) in finished:
                    continue
                fresh = "" if rung is not None else f", fresh seed {seed}"
                place = f"{number} of {plan.trainings}: {arm.name}{fresh}"
                length = plan.length if rung is None else plan.rungs[rung].length
                turn = Turn(arm=arm, seed=seed, rung=rung, length=length)
                left.append(_Numbered(turn, place))
            before += len(entered)
            yield from (left[at : at + size] for at in range(0, len(left), size))

    def _trained(
        self, wave: Sequence[_Numbered], plan: Plan
    ) -> tuple[Made | None, list[Attempt | None]]:
        """Trains this rank's part of a wave.

        Returns:
            what this rank made, and the attempt of each rank: None where it was asked
            to end, or had none.
        """
        made, rank = None, self._sharing.crew.rank
        with self._sharing.agreeing():
            if rank < len(wave):
                made = self._trained_alone(wave[rank], plan)
        attempt = None if made is None else made.attempt
        return made, self._sharing.told(Attempt, attempt)

    def _trained_alone(self, numbered: _Numbered, plan: Plan) -> Made | None:
        """Trains one arm, and measures it where that is shown; None if interrupted."""
        turn = numbered.turn
        self._around.say(f"training {numbered.place}")
        try:
            made = self._bench.train(turn, Stoppable(self._around))
        except Interrupted:
            return None
        attempt = made.attempt
        if attempt.failure or not _measured(plan, turn.arm, attempt):
            return made
        flow = self._bench.flow_of(made.model)
        return dataclasses.replace(
            made, attempt=dataclasses.replace(attempt, flow=flow)
        )

    def _begun(self) -> Finished:
        """Returns what is finished, with the plan, which is made once."""
        bench, say = self._bench, self._around.say
        identity = identity_of(bench, self._options)
        done = self._ledger.begun(identity, resume=self._around.resume)
        if done.plan is not None:
            say(sentence(done.plan, self._options))
            return done
        spent = done.trial.seconds if done.trial is not None else 0.0
        left = dataclasses.replace(self._options, budget=self._options.budget - spent)
        done.plan = planned(bench, self._wanted, left, say)
        self._ledger.write(done)
        return done

    def _note(
        self, done: Finished, attempt: Attempt, made: Made | None, rank: int
    ) -> None:
        """Keeps a finished training: the weights first, then the line that counts.

        Args:
            done: what was finished before it.
            attempt: the training.
            made: what it made, on the rank that trained.
            rank: which that is.
        """
        places = [] if attempt.failure else _places(attempt, done.attempts)
        if places:
            weights = None if made is None else snapshot(made.model)
            weights = self._sharing.sent(weights, rank)
            for place in places if self._sharing.crew.first else ():
                self._ledger.keep(place, weights)
        done.attempts.append(attempt)
        if self._sharing.crew.first:
            self._ledger.write(done)

    def kept(self, found: Fixing) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Returns the model that is kept, as it was trained."""
        best = keeper(found)
        assert found.plan is not None
        model, edits = self._bench.start(found.plan.arm(found.kept), best.seed)
        place = LONE if found.status == "unproven" else found.kept
        put(model, self._ledger.weights(place))
        return model, edits


def _places(attempt: Attempt, others: Sequence[Attempt]) -> list[str]:
    """Returns where weights are kept that nothing finished was better than."""
    own = [a for a in others if a.arm == attempt.arm and a.rung is None]
    proves = attempt.rung is None and _leads(attempt, own)
    places = [attempt.arm] if proves else []
    return [*places, LONE] if _leads(attempt, others) else places


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
        CONTENTS: contents(bench.fed.train),
        "training samples": str(bench.fed.split.train),
        "loss": bench.loss.name,
        "device": bench.device.type,
        **{
            f"--{name.replace('_', '-')}": str(value)
            for name, value in dataclasses.asdict(options).items()
        },
    }
