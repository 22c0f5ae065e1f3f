"""The three-step algorithm as a whole: guards, controls, refusals."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.nn import PiecewiseLinear
from vgaudit.training.adact import (
    OneHidden,
    Patterns,
    Plan,
    ThreeSteps,
    fit,
    start,
    steps,
)


def patterns(seed: int, count: int = 150) -> Patterns:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    y = (x[:, :1] * x[:, 1:2]).sin() + (2 * x[:, 2:3]).cos()
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return Patterns(x, y + 0.2 * noise)


def fresh(data: Patterns, seed: int, *, units: int = 8) -> OneHidden:
    generator = torch.Generator().manual_seed(seed)
    return start(data.inputs, 1, units=units, generator=generator)


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_no_step_raises_the_loss(seed: int, adapt: bool) -> None:
    data = patterns(seed)
    done = fit(fresh(data, seed), data, plan=Plan(iterations=20, adapt=adapt))
    slack = 1 + 1e-10
    for before, after in pairwise(done.history):
        assert after.after_hidden <= before.loss * slack
        assert after.after_hinges <= after.after_hidden * slack
        assert after.loss <= after.after_hinges * slack
    assert done.history[-1].loss < 0.9 * done.history[0].loss
    found = (data.targets - done.net(data.inputs)).square().sum(1).mean()
    assert found.item() == pytest.approx(done.history[-1].loss, 1e-12)


def test_molf_alone_can_raise_it() -> None:
    """Why the guard is there; AdAct and OWO need none."""
    rises = 0
    for seed in range(6):
        data = patterns(seed)
        plan = Plan(iterations=20, guard=False, adapt=True)
        done = fit(fresh(data, seed), data, plan=plan)
        for before, after in pairwise(done.history):
            rises += after.after_hidden > before.loss * (1 + 1e-9)
            assert after.after_hinges <= after.after_hidden * (1 + 1e-10)
            assert after.loss <= after.after_hinges * (1 + 1e-10)
    assert rises > 0


def test_hinge_values_stay_in_the_control() -> None:
    data = patterns(0)
    net = fresh(data, 0)
    done = fit(net, data, plan=Plan(iterations=3, adapt=False))
    assert torch.equal(net.activation.values, done.net.activation.values)
    assert all(turn.factor == 0.0 for turn in done.history)


def test_the_given_network_is_left_alone() -> None:
    data = patterns(0)
    net = fresh(data, 0)
    before = copy.deepcopy(net.state_dict())
    fit(net, data, plan=Plan(iterations=2))
    assert all(
        torch.equal(value, before[key]) for key, value in net.state_dict().items()
    )


def test_best_of_the_held_out_patterns_is_returned() -> None:
    data, held = patterns(0, count=40), patterns(1)
    plan = Plan(iterations=60, patience=5)
    done = fit(fresh(data, 0, units=20), data, held=held, plan=plan)
    scores = [turn.held for turn in done.history]
    assert scores.index(min(scores)) == done.best < len(scores) - 1
    assert done.stopped == "no lower held-out loss in 5 iterations"
    assert len(scores) - 1 - done.best == 5
    assert steps.loss(done.net, held) == pytest.approx(min(scores), 1e-12)


def test_a_solved_problem_stays_solved() -> None:
    """Targets that the network itself computes: the loss is 0 from the start."""
    data = patterns(0)
    net = fresh(data, 0)
    with torch.no_grad():
        for parameter in net.output.parameters():
            parameter.copy_(torch.ones_like(parameter))
        targets = net(data.inputs)
    done = fit(net, Patterns(data.inputs, targets), plan=Plan(iterations=3))
    assert done.history[-1].loss < 1e-20


def test_net_control() -> None:
    data = patterns(3)
    net = fresh(data, 3)
    z = net.hidden(data.inputs)
    torch.testing.assert_close(z.mean(0), torch.full_like(z[0], 0.5))
    torch.testing.assert_close(z.std(0, correction=0), torch.ones_like(z[0]))
    assert 0.0 in net.activation.hinges[0].tolist()
    y = torch.relu(z)
    torch.testing.assert_close(net.activation(z), y, rtol=0, atol=1e-15)


def test_scale_of_the_targets_is_only_scale() -> None:
    """Targets × c: every loss × c² (all steps are least squares)."""
    data = patterns(2)
    plan = Plan(iterations=3)
    plain = fit(fresh(data, 2), data, plan=plan)
    scaled = fit(fresh(data, 2), Patterns(data.inputs, 8 * data.targets), plan=plan)
    for a, b in zip(plain.history[1:], scaled.history[1:], strict=True):
        assert b.loss == pytest.approx(64 * a.loss, 1e-6)


def test_constant_input_and_single_precision() -> None:
    data = patterns(0)
    x = torch.cat((data.inputs, torch.ones(len(data), 1)), 1).float()
    flat = Patterns(x, data.targets.float())
    net = start(x, 1, units=6, generator=torch.Generator().manual_seed(0))
    done = fit(net, flat, plan=Plan(iterations=10))
    losses = [turn.loss for turn in done.history]
    assert losses[-1] < losses[0]
    assert all(after <= before * 1.001 for before, after in pairwise(losses))


def bare(units: int = 3, **parts: nn.Module) -> OneHidden:
    given = {
        "hidden": nn.Linear(2, units),
        "activation": PiecewiseLinear(units),
        "output": nn.Linear(units, 1),
    }
    return OneHidden(**{**given, **parts})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"activation": PiecewiseLinear(3, start="residual", base=nn.ReLU())},
            "the three-step algorithm on a residual PiecewiseLinear",
        ),
        (
            {"activation": PiecewiseLinear(4)},
            "3 hidden units, 4 activations, 3 inputs of the output layer",
        ),
        (
            {"bypass": nn.Linear(2, 1)},
            "a bypass from 2 to 1 features",
        ),
    ],
)
def test_parts_that_do_not_fit(parts: dict, message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        bare(**parts)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.zeros(3, 2, 2),
            torch.zeros(3, 1),
            "inputs (3, 2, 2) and targets (3, 1) for a network of one hidden layer",
        ),
        (torch.zeros(3, 2), torch.zeros(4, 1), "3 inputs and 4 targets"),
        (
            torch.tensor([[torch.nan, 0.0]]),
            torch.zeros(1, 1),
            "inputs or targets that are not finite",
        ),
    ],
)
def test_patterns_that_cannot_be_used(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(CannotRun) as caught:
        Patterns(x, y)
    assert caught.value.message == message


def test_patterns_of_other_sizes_and_weights_without_a_loss() -> None:
    with pytest.raises(CannotRun) as caught:
        ThreeSteps(bare(), Patterns(torch.zeros(4, 3), torch.zeros(4, 1)))
    assert caught.value.message == (
        "patterns of 3 features and 1 targets for a network from 2 to 1"
    )
    net = bare()
    nn.init.constant_(net.output.weight, torch.inf)
    with pytest.raises(CannotRun) as caught:
        ThreeSteps(net, Patterns(torch.ones(4, 2), torch.zeros(4, 1)))
    assert caught.value.message.startswith("the three-step algorithm starts from")


def test_plan_without_iterations() -> None:
    with pytest.raises(BadConfig):
        Plan(iterations=0)
