"""The trial of a model that no finding fails: it learns, does not, or cannot tell."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vgaudit
from tests.fixing.models import Stop, fixed, healthy, sick, task
from tests.fixing.test_fixing_repair import POOR, RESCALED
from vgaudit.errors import CannotRun
from vgaudit.findings import Report
from vgaudit.fixing import Arm, Attempt, Fixing, FixOptions
from vgaudit.judge import Policy
from vgaudit.plain import to_plain
from vgaudit.repair import candidates, planning, trial
from vgaudit.repair.fix import Repaired
from vgaudit.reports.fixing import parse, render

OPTIONS = FixOptions(budget=1e6, most_steps=120)
CALM = Arm(
    name="reinit + adam, lr 0.01",
    family="treatment",
    start="reinit",
    method="adam",
    lr=0.01,
)


LENIENT = Policy(fail_on="never")
"""Whatever the scan finds, nothing fails: what it would miss can be made at will."""


class Exponential(nn.Module):
    """exp(x): the first steps are calm, later ones are not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def steep() -> nn.Sequential:
    """Returns a net that no finding fails, and that SGD blows up within a few steps."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [nn.Linear(48 if i else 16, 48), Exponential()]
    return nn.Sequential(*layers, nn.Linear(48, 4))


def steps_of_sgd(model: nn.Module, rate: float, steps: int) -> float:
    """Returns the accuracy on new samples after plain steps of torch's SGD."""
    x, y = task(1200)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    new, wanted = task(2000, seed=2)
    with torch.no_grad():
        return float((model(new).argmax(1) == wanted).float().mean())


@pytest.fixture(scope="module")
def learned() -> Fixing:
    return fixed(healthy(), task(), OPTIONS).fixing


@pytest.fixture(scope="module")
def blown() -> Repaired:
    with pytest.MonkeyPatch.context() as patch:
        few(patch, RESCALED)
        return fixed(sick(), task(), OPTIONS, policy=LENIENT)


def few(patch: pytest.MonkeyPatch, *arms: Arm) -> None:
    """Makes a repair without a diagnosis try some treatments alone, and poor draws."""

    def none(_report: Report) -> tuple[Arm, ...]:
        return ()

    def some(_flow: object, why: str) -> tuple[Arm, ...]:
        return tuple(dataclasses.replace(arm, why=why) for arm in arms)

    def poor(count: int, _allowed: object, *, seed: int) -> tuple[Arm, ...]:
        del seed
        names = (POOR.name.replace("1", str(i + 1), 1) for i in range(count))
        return tuple(dataclasses.replace(POOR, name=name) for name in names)

    patch.setattr(candidates, "candidates", none)
    patch.setattr(candidates, "treatments", some)
    patch.setattr(candidates, "random_repairs", poor)


def test_a_model_that_trains_is_healthy_and_the_reason_says_how_far_it_came(
    learned: Fixing,
) -> None:
    assert learned.status == "healthy"
    assert learned.trial is not None
    (attempt,) = learned.trial.attempts
    by_hand = steps_of_sgd(healthy(), 0.1, attempt.steps)

    assert attempt.score == pytest.approx(by_hand, abs=0.1)
    assert "trained for 120 steps by sgd at lr 0.1 it reaches" in learned.reason
    assert f"{100 * attempt.score:.1f} % (best constant answer" in learned.reason
    assert learned.attempts == ()
    assert learned.plan is None


def test_what_the_scan_does_not_see_the_trial_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The treatments are beside the point: none fits, and that is told with the trial.
    few(monkeypatch, CALM)
    monkeypatch.setattr(planning, "timed", _misfit)
    done = fixed(steep(), task(), OPTIONS).fixing

    # By hand as well, SGD leaves this net no better than one class for all.
    assert max(steps_of_sgd(steep(), rate, 120) for rate in (0.1, 0.01)) < 0.4
    assert (done.status, done.findings) == ("nothing", ())
    assert "neither the model as it came nor a treated one" in done.reason
    assert done.trial is not None
    assert "nothing by sgd at lr 0.1, as the loss is nan" in done.trial.reason
    assert done.trial.reason in render(done, form="text")
    assert "It was treated because of the trial" in render(done, form="html")


def _misfit(*_args: object) -> None:
    raise CannotRun("no")


def test_a_model_that_stays_at_chance_is_treated_and_repaired(
    blown: Repaired,
) -> None:
    done = blown.fixing
    assert done.trial is not None
    x, y = task(3000, seed=2)
    with torch.no_grad():
        right = float((blown.model(x).argmax(1) == y).float().mean())

    assert max(steps_of_sgd(sick(), rate, 120) for rate in (0.1, 0.01)) < 0.4
    assert done.findings == ()
    assert [attempt.arm for attempt in done.trial.attempts] == [
        "plain sgd, lr 0.1",
        "plain sgd, lr 0.01",
    ]
    assert "trained for 120 steps it stays at chance" in done.trial.reason
    assert done.status == "repaired"
    assert right > 0.8
    assert done.plan is not None
    assert all("at chance" in arm.why for arm in done.plan.of("treatment"))
    assert done.seconds == pytest.approx(
        sum(a.seconds for a in (*done.trial.attempts, *done.attempts))
    )


def test_every_report_says_why_it_was_treated(blown: Repaired) -> None:
    done = blown.fixing
    text, page = render(done, form="text"), render(done, form="html")
    back = parse(json.loads(render(done, form="json"))["fixing"])

    assert "found: no finding fails the scan; it is treated because of the" in text
    assert "trial: the model as it came, 2 trainings of up to 120 steps" in text
    assert "<h2>Trial</h2>" in page
    assert "It was treated because of the trial" in page
    assert to_plain(back) == to_plain(done)


def test_a_healthy_report_shows_the_evidence(learned: Fixing) -> None:
    text, page = render(learned, form="text"), render(learned, form="html")
    score = learned.trial.attempts[0].score if learned.trial is not None else 0.0

    assert text.startswith("healthy: left alone: no finding fails the scan, and")
    assert f"{100 * score:.1f} %" in text.partition("trial: ")[2]
    assert "<h2>Trial</h2>" in page
    assert "Learning curves: the model as it came" in page


def test_the_optimizer_that_the_scan_is_judged_for_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = vgaudit.fix(
        healthy(), task(600), options=OPTIONS, policy=Policy(optimizer="adam")
    ).fixing

    assert done.trial is not None
    assert done.trial.arms[0].name == "plain adam, lr 0.001"
    assert done.status == "healthy"


def test_a_trained_model_needs_no_trial() -> None:
    model = healthy()
    assert steps_of_sgd(model, 0.1, 200) > 0.8
    done = vgaudit.fix(model, task(600), options=OPTIONS).fixing

    assert done.status == "healthy"
    assert done.trial is None
    assert "as it came it is above chance" in done.reason
    assert "no trial was needed" in done.reason


def test_without_a_trial_the_reason_says_so() -> None:
    done = fixed(steep(), task(), dataclasses.replace(OPTIONS, no_trial=True)).fixing

    assert (done.status, done.trial) == ("healthy", None)
    assert "was not tried (--no-trial)" in done.reason


def test_too_few_samples_leave_a_healthy_model_alone() -> None:
    done = fixed(healthy(), task(150), OPTIONS).fixing

    assert (done.status, done.trial) == ("healthy", None)
    assert "30 samples held out are too few" in done.reason


def test_one_label_alone_tells_nothing() -> None:
    x, _ = task(600)
    done = fixed(healthy(), (x, torch.ones(600, dtype=torch.long)), OPTIONS).fixing

    assert (done.status, done.trial) == ("healthy", None)
    assert "same label" in done.reason


def test_a_trial_takes_a_tenth_of_the_budget_and_one_too_short_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = planning.Cost(once=0.0, validation=0.0, step=0.5)
    monkeypatch.setattr(trial, "timed", lambda *_: slow)
    short = FixOptions(budget=320.0)
    done = fixed(sick(), task(), short, policy=LENIENT).fixing

    # Two rates share 32 s: 32 steps of half a second each.
    assert done.trial is not None
    assert done.trial.length.steps == 32
    assert done.status == "healthy"
    assert "too short to tell whether it trains" in done.reason
    assert "stays at chance" in done.reason


def test_steps_are_bounded_however_much_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = planning.Cost(once=0.0, validation=0.0, step=0.0)
    monkeypatch.setattr(trial, "timed", lambda *_: free)
    done = fixed(healthy(), task(), FixOptions(budget=1e9)).fixing

    assert done.trial is not None
    assert done.trial.length.steps == 200


def own_loss(output: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(output, labels, label_smoothing=0.1)


def test_of_a_loss_of_ones_own_it_counts_that_it_falls() -> None:
    done = vgaudit.fix(healthy(), task(600), loss=own_loss, options=OPTIONS).fixing
    assert done.trial is not None
    assert done.base is not None

    assert done.metric == "loss"
    assert done.status == "healthy"
    assert done.trial.attempts[-1].score > 0.99 * done.base
    assert "its loss falls from" in done.reason


def test_a_loss_of_ones_own_that_does_not_fall_is_sick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few(monkeypatch, CALM)
    short = dataclasses.replace(OPTIONS, most_steps=60)
    done = vgaudit.fix(steep(), task(600), loss=own_loss, options=short).fixing

    assert done.trial is not None
    assert "its loss does not fall" in done.trial.reason
    assert done.plan is not None


def test_a_loss_that_fell_before_is_told_by_the_labels_of_other_samples() -> None:
    model = healthy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = task(600)
    for _ in range(600):
        optimizer.zero_grad()
        own_loss(model(x), y).backward()
        optimizer.step()
    loss = float(own_loss(model(x), y).detach())
    rates = {"sgd": (1e-9,), "adam": (1e-9,)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "RATES", rates)
        done = vgaudit.fix(model, (x, y), loss=own_loss, options=OPTIONS).fixing

    assert done.status == "healthy"
    assert done.base == pytest.approx(-loss, abs=0.2)
    assert "those of other samples" in done.reason


def told(attempts: tuple[Attempt, ...]) -> list[tuple[str, int, float, int]]:
    return [(a.arm, a.seed, a.score, a.steps) for a in attempts]


@pytest.mark.parametrize("cut", [40, 100, 200])
def test_a_trial_is_resumed_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    few(monkeypatch, CALM)
    short = dataclasses.replace(OPTIONS, most_steps=60)

    def run(**how: Any) -> Fixing:
        return fixed(sick(), task(600), short, policy=LENIENT, **how).fixing

    whole = run()
    first = run(folder=tmp_path, stop=Stop(cut))
    # A training asks after 56 steps and 8 laps: the third one is not of the trial.
    assert first.status == "interrupted"
    assert ("the trial" in first.early) == (cut < 2 * 64)
    assert first.folder == str(tmp_path)
    assert first.trial is not None
    assert len(first.trial.attempts) == min(cut // 64, 2)

    def never(*_args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(trial, "timed", never)
    stop = Stop()
    again = run(folder=tmp_path, resume=True, stop=stop)

    assert whole.trial is not None
    assert again.trial is not None
    assert whole.trial.reason
    assert told(again.trial.attempts) == told(whole.trial.attempts)
    assert again.trial.reason == whole.trial.reason
    assert told(again.attempts) == told(whole.attempts)
    assert (again.status, again.kept) == (whole.status, whole.kept)
    assert ("plain sgd, lr 0.1" in stop.taken) == (cut < 64)


def test_failing_findings_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(trial.Trials, "run", never)
    few(monkeypatch, CALM)
    monkeypatch.setattr(candidates, "candidates", lambda _report: (CALM,))
    done = fixed(sick(6), task(600), dataclasses.replace(OPTIONS, most_steps=16)).fixing

    assert done.findings
    assert done.trial is None
    assert math.isfinite(done.seconds)
