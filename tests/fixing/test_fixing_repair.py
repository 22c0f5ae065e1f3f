"""Whole repairs: healthy, sick, and where a learning rate is all it takes."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import vgaudit
from tests.fixing.models import fixed, healthy, sick, task
from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.fixing import Arm, Fixing, FixOptions
from vgaudit.repair import candidates, planning
from vgaudit.repair.fix import Repaired

OPTIONS = FixOptions(budget=600.0, most_steps=100)

RESCALED = Arm(
    name="rescale + sdagd", role="candidate", start="rescale", method="sdagd"
)
ADAPTED = Arm(name="adact + adam", role="candidate", start="adact", method="adam")
PLAIN = Arm(name="sdagd", role="candidate", start="as-it-is", method="sdagd")


def only(monkeypatch: pytest.MonkeyPatch, *arms: Arm) -> None:
    """Makes the repair try some candidates alone, to be quick."""

    def few(_report: Report) -> tuple[Arm, ...]:
        return arms

    monkeypatch.setattr(candidates, "candidates", few)


@pytest.fixture(scope="module")
def repaired() -> Repaired:
    with pytest.MonkeyPatch.context() as patch:
        only(patch, RESCALED, PLAIN)
        return fixed(sick(), task(), OPTIONS)


def test_a_healthy_model_is_left_alone_with_the_reason() -> None:
    model = healthy()
    done = vgaudit.fix(model, task(400))

    assert done.fixing.status == "healthy"
    assert "no finding fails" in done.fixing.reason
    assert done.fixing.attempts == ()
    for old, new in zip(model.parameters(), done.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_sick_model_is_repaired_and_the_winner_clears_every_best_control(
    repaired: Repaired,
) -> None:
    done = repaired.fixing
    winner, control = done.estimate(done.kept), done.estimate(done.control)

    assert done.status == "repaired"
    assert done.kept == done.best == "rescale + sdagd"
    assert winner.low > control.high
    assert done.base is not None
    assert winner.low > done.base
    assert winner.mean > 0.8
    for arm in done.plan.arms if done.plan else ():
        if arm.role == "control":
            assert done.estimate(arm.name).mean <= control.mean


def test_the_kept_model_scores_as_was_said(repaired: Repaired) -> None:
    done = repaired.fixing
    x, y = task(3000, seed=2)
    with torch.no_grad():
        right = float((repaired.model(x).argmax(1) == y).float().mean())

    best = max(done.of(done.kept), key=lambda attempt: attempt.chosen)
    # 3,000 new samples and 150 old ones, at about 0.9: 3 standard errors.
    assert right == pytest.approx(best.score, abs=0.08)


def test_the_gradient_is_measured_before_and_after(repaired: Repaired) -> None:
    before, after = repaired.fixing.before, repaired.fixing.after

    assert before is not None
    assert after is not None
    assert before.flow.attenuation is not None
    assert after.flow.attenuation is not None
    assert after.flow.attenuation.value > before.flow.attenuation.value + 1


def test_every_training_takes_the_same_number_of_steps(repaired: Repaired) -> None:
    plan = repaired.fixing.plan

    assert plan is not None
    assert {attempt.steps for attempt in repaired.fixing.attempts} == {plan.steps}
    assert len(repaired.fixing.attempts) == plan.trainings


def test_each_kind_of_control_takes_as_many_trainings_as_the_candidates(
    repaired: Repaired,
) -> None:
    done = repaired.fixing
    assert done.plan is not None
    role = {arm.name: "random" if arm.drawn else arm.role for arm in done.plan.arms}
    taken = [role[attempt.arm] for attempt in done.attempts]

    assert taken.count("candidate") == 2 * 3
    assert taken.count("random") == taken.count("control") == taken.count("candidate")


def test_random_repair_draws_by_the_seed_and_draws_all_there_is() -> None:
    starts = ("as-it-is", "rescale")
    found = [
        candidates.drawn(torch.Generator().manual_seed(i), starts) for i in range(200)
    ]
    again = candidates.drawn(torch.Generator().manual_seed(7), starts)

    assert found[7] == again
    assert {arm.name for arm in found} == {
        "adam",
        "sdagd",
        "rai",
        "rescale + adam",
        "rescale + sdagd",
        "rescale + rai",
    }


def test_nothing_is_claimed_where_a_learning_rate_does_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small weights lose the gradient; larger steps of Adam alone bring them back.
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(6):
        layers += [nn.Linear(32 if i else 16, 32), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    with torch.no_grad():
        for layer in model[:-1]:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.3)
    only(monkeypatch, PLAIN, ADAPTED)
    monkeypatch.setattr(candidates, "RATES", (1e-3, 1e-2))
    done = fixed(model, task(), FixOptions(budget=600.0, most_steps=200)).fixing

    assert done.findings
    assert done.status == "control"
    assert done.kept == done.control == "plain adam, lr 0.01"
    assert "no candidate clears" in done.reason
    assert done.estimate(done.best).low <= done.estimate(done.control).high


def test_a_budget_is_kept_within_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, RESCALED)
    began = time.monotonic()
    done = fixed(sick(), task(), FixOptions(budget=6.0, most_steps=100_000)).fixing
    spent = time.monotonic() - began

    assert done.plan is not None
    assert done.plan.expected < 6.0
    assert 1.5 < spent < 24.0


def test_candidates_are_dropped_before_steps_become_few() -> None:
    cheap = planning.Cost(once=0.0, validation=0.0, step=0.01)

    length = planning._length([cheap] * 10, 20.0, 10_000)
    # 20 s for 10 trainings of 0.01 s a step: 200 steps in 10 laps.
    assert (length.steps, length.count) == (200, 10)
    assert planning._length([cheap] * 10, 20.0, 50).steps == 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (FixOptions(seeds=2), "--seeds is 2"),
        (FixOptions(valid_split=0.0), "--valid-split"),
        (FixOptions(budget=0.0), "budget"),
    ],
)
def test_options_that_prove_nothing_are_refused(options: FixOptions, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        fixed(sick(2), task(400), options)


def test_too_few_samples_to_judge_are_refused() -> None:
    with pytest.raises(BadConfig, match="held out"):
        fixed(sick(), task(150), FixOptions())


def test_what_was_not_tried_is_called_so(repaired: Repaired) -> None:
    done: Fixing = repaired.fixing

    assert any("normalise" in sentence for sentence in done.advice)
