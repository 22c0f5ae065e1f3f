"""What is recorded and how it is judged: flow, split, verdicts, reports."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.training.courses import net, options, record, samples
from vgaudit.compare import compare
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.judge import judge
from vgaudit.plain import to_plain
from vgaudit.reports import retraining as words
from vgaudit.retraining import Epoch, LayerGradient, Run
from vgaudit.training import methods, optimizers
from vgaudit.training.campaign import Surroundings
from vgaudit.training.method import Entry, StepOutcome
from vgaudit.training.methods import control
from vgaudit.training.recorder import Recorder, weights_of
from vgaudit.training.verdict import against


def test_gradients_are_recorded_as_root_mean_squares() -> None:
    model = net()
    recorder = Recorder(weights_of(model, None), 1)
    x, y = samples()
    sums: dict[str, list[float]] = {}
    for part in range(3):
        model.zero_grad()
        chosen = slice(part * 16, part * 16 + 16)
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        recorder.observe()
        for name in ("0", "2", "4"):
            grad = model.get_submodule(name).weight.grad.double()
            sums.setdefault(name, []).append(float((grad**2).mean().sqrt()))
    layers = recorder.finish_epoch()

    assert ["0", "2", "4"] == [layer.layer for layer in layers]
    means = {name: statistics.mean(values) for name, values in sums.items()}
    middle = statistics.median(means.values())
    for layer in layers:
        assert layer.rms == pytest.approx(means[layer.layer], rel=1e-6)
        assert layer.relative == pytest.approx(
            math.log10(means[layer.layer] / middle), abs=1e-6
        )
    assert () == recorder.finish_epoch()


def test_gradients_below_the_squares_of_float32_are_recorded() -> None:
    model = nn.Linear(3, 2, bias=False)
    recorder = Recorder({"layer": model.weight}, 1)
    model.weight.grad = torch.full((2, 3), 1e-30)
    recorder.observe()
    (layer,) = recorder.finish_epoch()

    assert layer.rms == pytest.approx(1e-30, rel=1e-5)


def test_only_some_steps_of_a_long_epoch_are_measured() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    recorder = Recorder({"layer": weight}, 320)
    for step in range(320):
        weight.grad = torch.full((2, 2), float(step))
        recorder.observe()
    (layer,) = recorder.finish_epoch()

    assert layer.rms == pytest.approx(statistics.mean(range(0, 320, 10)))


def test_a_run_records_every_epoch_from_the_input_to_the_output() -> None:
    run = record(net(depth=4), options("sdagd")).run

    assert [0, 1, 2, 3] == [epoch.number for epoch in run.epochs]
    for epoch in run.epochs:
        assert ["0", "2", "4", "6", "8"] == [layer.layer for layer in epoch.layers]
        assert epoch.attenuation is not None
        assert statistics.median(x.relative for x in epoch.layers) == pytest.approx(0)
        relative = [layer.relative for layer in epoch.layers]
        assert epoch.spread == pytest.approx(max(relative) - min(relative))
    assert [None, *[pytest.approx(7 * n) for n in (1, 2, 3)]] == [
        epoch.steps or None for epoch in run.epochs
    ]


def layered(number: int, *rms: float) -> Epoch:
    layers = tuple(
        LayerGradient(
            layer=str(i), rms=x, relative=math.log10(x) if x else None, to_weight=1.0
        )
        for i, x in enumerate(rms)
    )
    return Epoch(
        number=number,
        steps=number,
        train_loss=1.0,
        valid_loss=1.0,
        metric=0.5,
        lr=0.1,
        seconds=1.0,
        layers=layers,
    )


def test_uniformity_and_stability_have_closed_forms() -> None:
    run = Run(
        name="x",
        best=0,
        epochs=(layered(0, 9, 9), layered(1, 1, 10), layered(2, 100, 10)),
    )

    assert layered(1, 1, 1000).spread == pytest.approx(3)
    assert layered(1, 0, 1).spread == math.inf
    assert layered(1, 1).spread is None
    # log10 of layer 0: 0, 2, deviation 1; of layer 1: 1, 1, deviation 0.
    assert run.wander == pytest.approx(0.5)
    assert replace(run, epochs=run.epochs[:2]).wander is None


def scored(metric: float | None, loss: float | None, judged: int = 100) -> Run:
    epoch = replace(layered(0, 1, 1), metric=metric, valid_loss=loss)
    return Run(name="x", best=0, epochs=(epoch,), judged=judged)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(10, 10_000))
def test_accuracies_differ_only_beyond_their_interval(a, b, n) -> None:
    ours, theirs = scored(a, 1, n + 5), scored(b, 1, n)
    found = against(ours, theirs, metric="accuracy")
    back = against(theirs, ours, metric="accuracy")
    half = 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / n)

    assert found.difference == pytest.approx(a - b)
    assert found.uncertainty == pytest.approx(half)
    assert (found.outcome == "same") == (abs(a - b) <= found.uncertainty)
    opposite = {"better": "worse", "worse": "better", "same": "same"}
    assert back.outcome == opposite[found.outcome]


@pytest.mark.parametrize(
    ("ours", "theirs", "metric", "outcome"),
    [
        ((None, 1.0), (None, 2.0), "", "better"),
        ((None, 1.0), (None, 1.005), "", "same"),
        ((None, math.nan), (None, 1.0), "", "worse"),
        ((None, None), (None, None), "", ""),
        ((0.9, 1.0), (0.8, 2.0), "R²", "better"),
        ((0.9, 1.0), (0.8999, 1.0), "R²", "same"),
        ((-3.0, 1.0), (0.1, 1.0), "R²", "worse"),
    ],
)
def test_losses_and_r_squared_are_judged_by_the_residual(
    ours, theirs, metric, outcome
) -> None:
    found = against(scored(*ours), scored(*theirs), metric=metric)

    assert outcome == found.outcome


def test_the_report_says_plainly_what_is_no_better() -> None:
    done = record(net(), options("adam", controls=("adam",)))
    compared = compare(judge(done.before), judge(done.after))
    text = words.render(done, compared, form="text")

    assert "adam is no better than adam: +0.0 points of accuracy (± " in text
    assert "trained on 108 samples; validated on 12 of 120 samples" in text
    assert "only 12 validation samples: figures are coarse" in text
    assert "nothing was written; -o OUT.safetensors" in text
    assert f"*     {done.run.best}" in text
    lines = text.splitlines()
    assert max(map(len, lines[:20])) <= 100


def test_a_training_without_control_says_so() -> None:
    done = record(net(), options("adam"))

    assert "trained without a control: --control adam" in words.render(
        done, None, form="text"
    )


def test_a_record_survives_the_way_through_json() -> None:
    done = record(net(), options("sdagd", controls=("adam",), patience=2))
    text = words.render(done, None, form="json")

    assert words.parse(json.loads(text)["retraining"]) == done
    assert words.parse(to_plain(done)) == done
    with pytest.raises(CannotLoad, match="not a training: metric"):
        words.parse({**to_plain(done), "metric": 3})


def test_an_interrupted_training_tells_how_to_go_on(tmp_path) -> None:
    done = record(net(), options("adam"), Surroundings(stop=lambda: True))
    text = words.render(done, None, form="text", resume="vgaudit retrain x --resume")

    assert "interrupted: adam was interrupted in epoch 1 of 3, after 1 of 21" in text
    assert "nothing was saved" in text
    saved = replace(done, checkpoint="out.run")
    text = words.render(saved, None, form="text", resume="vgaudit retrain x --resume")
    assert "saved in out.run; to continue: vgaudit retrain x --resume" in text


def test_a_control_takes_the_budget_and_its_own_settings() -> None:
    asked = options("sdagd", settings={"kappa": "1"}, lr=0.1, weight_decay=0.5)
    own = control("adam:lr=0.003,beta1=0.8", asked)

    assert (own.method, own.lr, own.settings) == ("adam", 0.003, {"beta1": "0.8"})
    assert (own.epochs, own.batch_size, own.seed) == (3, 16, 0)
    assert control("sgd", asked).lr is None
    with pytest.raises(BadConfig, match="'beta' is not NAME=VALUE"):
        control("adam:beta", asked)


class Tired:
    """A method that takes nine steps and leaves out all others."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.left = inner, 9

    def step(self, *args: Any, **kwargs: Any) -> StepOutcome:
        self.left -= 1
        if self.left < 0:
            return StepOutcome(loss=math.nan, skipped="the loss is NaN")
        found: StepOutcome = self.inner.step(*args, **kwargs)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_an_epoch_without_steps_is_not_called_one_of_another_loss(monkeypatch) -> None:
    tired = Entry(build=lambda setup: Tired(optimizers.adam(setup)))
    monkeypatch.setitem(methods._GRADIENT, "adam", tired)
    run = record(net(), options("adam", batch_size=12)).run
    notes = " ".join(run.notes)

    assert [0, 9, 9, 9] == [epoch.steps for epoch in run.epochs]
    assert [0, 0, 9, 9] == [epoch.skipped for epoch in run.epochs]
    assert all(epoch.layers for epoch in run.epochs)
    assert "where every step of an epoch was left out" in notes
    assert "none of the ordinary loss" not in notes
