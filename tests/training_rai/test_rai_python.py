"""Trainings from Python: settings as numbers, losses as functions, and modes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import vgaudit
from tests.training.courses import net, options, record, samples
from vgaudit.plain import to_plain
from vgaudit.retraining import RetrainOptions
from vgaudit.typed import typed


def test_settings_may_be_numbers_truths_and_none() -> None:
    given = {"kappa": 1.0, "every": 3, "centring": False, "scope": None}
    text = {"kappa": "1.0", "every": "3", "centring": "no", "scope": "none"}
    runs = [record(net(), options("sdagd", settings=x)).run for x in (given, text)]
    plain = record(net(), options("sdagd")).run

    losses = [[epoch.valid_loss for epoch in run.epochs] for run in (*runs, plain)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_settings_survive_the_way_through_json() -> None:
    asked = RetrainOptions(method="rai", settings={"weight": 2.5, "gate": True})
    read = typed(RetrainOptions, json.loads(json.dumps(to_plain(asked))))

    assert asked == read
    assert asked.settings == {"weight": "2.5", "gate": "True"}
    assert replace(asked, lr=0.1).settings == asked.settings


def test_a_wrong_number_is_told_like_a_wrong_text() -> None:
    with pytest.raises(vgaudit.VgauditError, match=r"every of sdagd is '2\.5'"):
        record(net(), options("sdagd", settings={"every": 2.5}))


@pytest.mark.parametrize(
    ("loss", "hint"),
    [
        (nn.CrossEntropyLoss(), "CrossEntropyLoss: the epoch to keep"),
        (nn.functional.cross_entropy, "named 'cross-entropy' it has one"),
    ],
)
def test_a_loss_without_a_metric_says_so(loss: object, hint: str) -> None:
    done = record(net(), options("adam"), loss=loss)

    assert done.metric == ""
    assert any(hint in note for note in done.notes)
    named = record(net(), options("adam"), loss="cross-entropy")
    assert not any("no accuracy" in note for note in named.notes)


@pytest.mark.parametrize("method", ["sdagd", "rai"])
@pytest.mark.parametrize("train", [True, False])
def test_a_model_comes_back_in_its_mode(method: str, *, train: bool) -> None:
    model = net(norm=True).train(train)
    model[1].eval()
    wanted = [module.training for module in model.modules()]
    asked = options(method)
    done = vgaudit.retrain(model, samples(), options=asked)

    assert wanted == [module.training for module in done.model.modules()]
    assert wanted == [module.training for module in model.modules()]


def test_labels_that_say_no_and_yes_have_a_way_out() -> None:
    x, y = samples()
    labels = torch.stack([(y > 0).float(), (y > 1).float(), (y < 9).float()], 1)
    done = record(net(), options("adam"), data=(x, labels), loss=None)

    assert done.loss == "mse"
    assert any("--loss bce-with-logits fits" in note for note in done.notes)
