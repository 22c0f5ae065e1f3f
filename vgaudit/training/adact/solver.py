"""AdAct's three-step algorithm: MOLF, AdAct and OWO in turn, with guards."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.training.adact import steps
from vgaudit.training.adact.least_squares import solve
from vgaudit.training.adact.network import OneHidden
from vgaudit.training.adact.patterns import Patterns

HALVINGS = 30
ROUNDING = 64
"""Losses count as equal within this many rounding units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the algorithm is to do.

    Attributes:
        iterations: at most.
        adapt: train the hinge values; without it this is MOLF with OWO alone, the
            control.
        guard: take no step that raises the training loss. MOLF's is halved until it
            does not: its curvature holds only until a net crosses a hinge.
        patience: iterations without a lower held-out loss before it stops.
    """

    iterations: int = 50
    adapt: bool = True
    guard: bool = True
    patience: int = 10

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.patience < 1:
            raise BadConfig(
                f"{self.iterations} iterations with a patience of {self.patience}",
                hint="give at least 1 of both",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One turn of the three steps.

    Attributes:
        number: from 1; 0 is the start, after OWO alone.
        loss: mean over patterns of the squared errors' sum, afterwards.
        after_hidden: the loss after MOLF.
        after_hinges: the loss after AdAct.
        halvings: of the MOLF step; 0 if it was taken whole.
        factor: the AdAct step's z; 0 where it was not taken.
        held: loss on the held-out patterns; None without them.
    """

    number: int
    loss: float
    after_hidden: float
    after_hinges: float
    halvings: int = 0
    factor: float = 0.0
    held: float | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained network.

    Attributes:
        net: as it was after iteration ``best``.
        history: the start and every iteration.
        best: the one with the lowest held-out loss; the last without held-out data.
        stopped: why it ended early, or empty.
    """

    net: OneHidden
    history: tuple[Iteration, ...]
    best: int
    stopped: str = ""


@dataclass(slots=True)
class ThreeSteps:
    """The algorithm on one network, trained in place.

    Attributes:
        net: float64 is advised; least squares lose half the digits.
        data: all training patterns.
        plan: what to do.
        loss: on ``data``, of ``net`` as it is.

    Raises:
        CannotRun: patterns that do not fit the network, or a loss that is not finite.
    """

    net: OneHidden
    data: Patterns
    plan: Plan = field(default_factory=Plan)
    loss: float = field(init=False)

    def __post_init__(self) -> None:
        _check(self.net, self.data)
        self.loss = steps.loss(self.net, self.data)
        if not math.isfinite(self.loss):
            raise CannotRun(
                f"the three-step algorithm starts from a loss of {self.loss:g}",
                hint="check the weights, or start from a fresh initialization",
            )

    def begin(self) -> Iteration:
        """Sets the output weights to their least-squares solution."""
        before = self.loss
        self.output()
        return Iteration(
            number=0, loss=self.loss, after_hidden=before, after_hinges=before
        )

    def turn(self, number: int) -> Iteration:
        """Takes the three steps once."""
        halvings = self.hidden()
        after_hidden = self.loss
        factor = self.hinges() if self.plan.adapt else 0.0
        after_hinges = self.loss
        self.output()
        return Iteration(
            number=number,
            loss=self.loss,
            after_hidden=after_hidden,
            after_hinges=after_hinges,
            halvings=halvings,
            factor=factor,
        )

    def hidden(self) -> int:
        """Moves the hidden weights (MOLF); returns how often the step was halved."""
        system = steps.factor_system(self.net, self.data)
        factors = solve(system.hessian, system.slope)
        for halvings in range(HALVINGS):
            share = 0.5**halvings

            def move(share: float = share) -> None:
                steps.move_hidden(self.net, system.direction, share * factors)

            if self._try(move):
                return halvings
        return HALVINGS

    def hinges(self) -> float:
        """Moves the hinge values (AdAct); returns the learning factor."""
        direction = steps.hinge_direction(self.net, self.data)
        factor = steps.learning_factor(self.net, self.data, direction)
        values = self.net.activation.values

        def move() -> None:
            with torch.no_grad():
                values.add_(direction, alpha=factor)

        return factor if self._try(move) else 0.0

    def output(self) -> None:
        """Solves for the output weights (OWO)."""
        weights = steps.output_weights(self.net, self.data)
        self._try(lambda: steps.set_output(self.net, weights))

    def _try(self, move: Callable[[], None]) -> bool:
        """Makes a move; takes it back where the guard forbids it."""
        before = {k: v.clone() for k, v in self.net.state_dict().items()}
        move()
        after = steps.loss(self.net, self.data)
        if self.plan.guard and not after <= self.loss + self._rounding():
            self.net.load_state_dict(before)
            return False
        self.loss = after
        return True

    def _rounding(self) -> float:
        unit = torch.finfo(self.net.output.weight.dtype).eps
        return ROUNDING * unit * self.loss


def fit(
    net: OneHidden,
    data: Patterns,
    *,
    held: Patterns | None = None,
    plan: Plan | None = None,
) -> Fit:
    """Returns a copy of ``net`` trained by the three-step algorithm.

    Each iteration moves the hidden weights along their gradient with one learning
    factor per unit (MOLF), the hinge values with the factor that is best (AdAct),
    and solves for the output weights (OWO). With ``held`` patterns the network of
    the lowest loss on them is returned: the algorithm overfits small data.

    Raises:
        CannotRun: patterns that do not fit the network, or a loss that is not finite.

    Source: AdAct (three steps); MOLF and OWO as in the Matlab code of the same
    group. The guards are ours: MOLF's step alone may raise the loss.
    """
    plan = plan or Plan()
    solver = ThreeSteps(copy.deepcopy(net), data, plan)
    best, kept, history = math.inf, solver.net, []
    found, stopped = 0, ""
    for number in range(plan.iterations + 1):
        done = solver.turn(number) if number else solver.begin()
        if held is not None:
            done = replace(done, held=steps.loss(solver.net, held))
        history.append(done)
        score = done.loss if done.held is None else done.held
        if held is None or score < best:
            best, found = score, number
            kept = solver.net if held is None else copy.deepcopy(solver.net)
        elif number - found >= plan.patience:
            stopped = f"no lower held-out loss in {plan.patience} iterations"
            break
    return Fit(kept, tuple(history), found, stopped)


def _check(net: OneHidden, data: Patterns) -> None:
    wanted = (net.hidden.in_features, net.output.out_features)
    given = (data.inputs.shape[1], data.targets.shape[1])
    if wanted != given:
        raise CannotRun(
            f"patterns of {given[0]} features and {given[1]} targets "
            f"for a network from {wanted[0]} to {wanted[1]}",
            hint="give patterns of the network's own sizes",
        )
