"""Whole repairs: healthy, sick, and where a learning rate is all it takes."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import vgaudit
from tests.fixing.models import fixed, healthy, sick, task
from vgaudit.errors import BadConfig
from vgaudit.estimates import clears, difference
from vgaudit.findings import Report
from vgaudit.fixing import Arm, Fixing, FixOptions
from vgaudit.repair import candidates, planning
from vgaudit.repair.fix import Repaired

OPTIONS = FixOptions(budget=600.0, most_steps=100)

RESCALED = Arm(
    name="rescale + sdagd", family="treatment", start="rescale", method="sdagd"
)
ADAPTED = Arm(name="adact + adam", family="treatment", start="adact", method="adam")
PLAIN = Arm(name="sdagd", family="treatment", start="as-it-is", method="sdagd")
POOR = Arm(
    name="random 1: adam, lr 0.0001",
    family="random",
    start="as-it-is",
    method="adam",
    lr=1e-4,
)


def only(monkeypatch: pytest.MonkeyPatch, *arms: Arm) -> None:
    """Makes the repair try some treatments alone, to be quick, beside poor draws."""

    def few(_report: Report) -> tuple[Arm, ...]:
        return arms

    def poor(count: int, _allowed: object, *, seed: int) -> tuple[Arm, ...]:
        del seed
        names = (POOR.name.replace("1", str(i + 1), 1) for i in range(count))
        return tuple(dataclasses.replace(POOR, name=name) for name in names)

    monkeypatch.setattr(candidates, "candidates", few)
    monkeypatch.setattr(candidates, "random_repairs", poor)


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
    winner = done.estimate(done.kept)

    assert done.status == "repaired"
    assert done.kept == done.best == "rescale + sdagd"
    assert done.base is not None
    assert winner.low > done.base
    assert winner.mean > 0.8
    for arm in done.finalists:
        if arm.family != "treatment":
            assert difference(winner, done.estimate(arm.name)).low > 0


def test_the_kept_model_scores_as_was_said(repaired: Repaired) -> None:
    done = repaired.fixing
    x, y = task(3000, seed=2)
    with torch.no_grad():
        right = float((repaired.model(x).argmax(1) == y).float().mean())

    best = max(done.proofs(done.kept), key=lambda attempt: attempt.chosen)
    # 3,000 new samples and 150 old ones, at about 0.9: 3 standard errors.
    assert right == pytest.approx(best.score, abs=0.08)


def test_the_gradient_is_measured_before_and_after(repaired: Repaired) -> None:
    before, after = repaired.fixing.before, repaired.fixing.after

    assert before is not None
    assert after is not None
    assert before.flow.attenuation is not None
    assert after.flow.attenuation is not None
    assert after.flow.attenuation.value > before.flow.attenuation.value + 1


def test_every_kind_takes_the_same_steps_on_the_same_seeds(repaired: Repaired) -> None:
    done = repaired.fixing
    plan = done.plan
    assert plan is not None
    taken: dict[str, list[tuple[int, int]]] = {}
    for attempt in done.attempts:
        kind = plan.arm(attempt.arm).family
        taken.setdefault(kind, []).append((attempt.seed, attempt.steps))

    assert sorted(taken["treatment"]) == sorted(taken["sweep"])
    assert sorted(taken["treatment"]) == sorted(taken["random"])
    assert sum(steps for _, steps in taken["sweep"]) == plan.family_steps
    assert len(done.attempts) == plan.trainings


def test_the_proof_uses_seeds_that_the_search_has_not_seen(repaired: Repaired) -> None:
    done = repaired.fixing
    search = {a.seed for a in done.attempts if a.rung is not None}
    proof = {a.seed for a in done.attempts if a.rung is None}

    assert len(proof) == 3
    assert not search & proof
    assert len(done.finalists) == 3


def test_random_repair_draws_by_the_seed_and_draws_all_there_is() -> None:
    found = candidates.random_repairs(200, ("as-it-is", "rescale"), seed=0)
    again = candidates.random_repairs(200, ("as-it-is", "rescale"), seed=0)
    other = candidates.random_repairs(200, ("as-it-is", "rescale"), seed=1)

    assert found == again
    assert found != other
    assert {(arm.start, arm.method) for arm in found} == {
        (start, method)
        for start in ("as-it-is", "rescale")
        for method in ("adam", "sdagd", "rai")
    }
    rates = [arm.lr for arm in found if arm.method == "adam" and arm.lr is not None]
    # Even in the logarithm: half of about 67 draws are below the middle, 10^-2.5.
    below = sum(rate < 10**-2.5 for rate in rates) / len(rates)
    assert min(rates) >= 1e-4
    assert max(rates) <= 1e-1
    assert 0.3 < below < 0.7


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
    monkeypatch.setitem(candidates.USUAL, "adam", 1e-2)
    monkeypatch.setitem(candidates.USUAL, "sgd", 1e-3)
    done = fixed(model, task(), FixOptions(budget=600.0, most_steps=200)).fixing

    assert done.findings
    assert done.status == "control"
    assert done.kept == done.control == "plain adam, lr 0.01"
    assert "train it with adam at lr 0.01; no change of the model" in done.reason
    best, control = done.estimate(done.best), done.estimate(done.control)
    assert not clears(best, control, metric=done.metric, judged=done.judged)


def test_a_budget_is_kept_within_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, RESCALED)
    began = time.monotonic()
    done = fixed(sick(), task(), FixOptions(budget=10.0, most_steps=100_000)).fixing
    spent = time.monotonic() - began

    assert done.plan is not None
    assert done.plan.expected < 10.0
    assert 2.5 < spent < 40.0


def test_candidates_are_dropped_before_steps_become_few() -> None:
    cheap = planning.Cost(once=0.0, validation=0.0, step=0.01)

    prices = planning.Prices((cheap, cheap, cheap), {})

    length = planning._length(prices, 8, 3, 42.0, 10_000)
    # Of each of 3 kinds 8 quarters, 2 and 3 wholes: 21 · 200 steps of 0.01 s are 42 s.
    assert (length.steps, length.count) == (200, 8)
    assert prices.whole(8, 3, length) == pytest.approx(42.0)
    assert planning._length(prices, 8, 3, 42.0, 40).steps == 40


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (FixOptions(seeds=2), "--seeds is 2"),
        (FixOptions(valid_split=0.0), "--valid-split"),
        (FixOptions(budget=0.0), "budget"),
        (FixOptions(trials=0), "--trials"),
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


def test_a_loss_of_nan_is_cured_by_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sick(3)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(1e30)
        model[-1].weight.mul_(1e30)
    fresh = Arm(
        name="reinit + adam", family="treatment", start="reinit", method="adam", lr=0.01
    )
    only(monkeypatch, fresh)
    done = fixed(model, task(), OPTIONS).fixing

    assert done.status == "repaired"
    assert done.kept == "reinit + adam"
    failed = [a.arm for a in done.attempts if a.failure]
    assert "plain adam, lr 0.001" in failed


def test_a_step_is_timed_without_the_first_the_slowest_and_the_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def pass_(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Clocked:
        choosing = None

        def start(self, _arm: object, _seed: int) -> tuple[nn.Module, tuple[()]]:
            return nn.Identity(), ()

        def runner(self, _turn: object, model: nn.Module, watch: Any) -> Any:
            def run() -> None:
                # A slow first step, two quick ones, one disturbed; then the epoch ends.
                for seconds in (9.0, 1.0, 1.0, 50.0, 100.0):
                    pass_(seconds)
                    watch.step(None)

            return SimpleNamespace(run=run, model=model)

        def score(self, _model: nn.Module, _rows: object) -> None:
            pass_(2.0)

    monkeypatch.setattr(planning.time, "monotonic", lambda: now)
    bench: Any = Clocked()
    cost = planning.timed(bench, candidates.sweep(1)[0], 0)

    assert planning.TIMED == 4
    assert (cost.step, cost.validation) == (1.0, 2.0)
