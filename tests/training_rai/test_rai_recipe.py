"""The whole recipe on two moons, and RAI in the training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training_rai.nets import BCE, Functional, Residual, chain, images, moons
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.retraining import RetrainOptions
from vgaudit.training.method import Scores, Setup
from vgaudit.training.rai import ENTRY, Recipe, find_cuts, train_full_batch
from vgaudit.training.rai.gate import Gate
from vgaudit.training.rai.readout import refit_readout


def _accuracy(model: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        found = model(*batch.args).flatten() > 0
    return float((found == (batch.labels > 0.5)).double().mean())


@pytest.mark.parametrize("window", [None, 20])
def test_a_hundred_and_one_sigmoid_layers_learn_two_moons(window: int | None) -> None:
    model, train, test = chain(100, 32), moons(100, 1), moons(1000, 2)
    control = copy.deepcopy(model)
    outcome = train_full_batch(
        model, train, BCE, Recipe(gate=Gate(window=window), ridge=1e-5)
    )
    refit_readout(control, find_cuts(control, train), BCE, train)

    assert _accuracy(model, test) >= 0.97
    assert _accuracy(control, test) < 0.6  # The readout alone learns nothing.
    assert 110 == outcome.steps
    assert 0.0 == outcome.noise
    # The relaxed problem was solved, the network was not: only alignment closes it.
    assert outcome.before.gap > 0.1
    assert abs(outcome.after.forward) < 0.1
    assert outcome.before.label_share > 0.1


def test_the_result_is_the_ordinary_model() -> None:
    model, batch = chain(6, 16), moons(60, 0)
    form = {name: t.shape for name, t in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    train_full_batch(model, batch, BCE)

    assert form == {name: t.shape for name, t in model.state_dict().items()}
    assert kinds == [type(module) for module in model.modules()]
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def test_a_net_of_functions_learns_by_the_general_run() -> None:
    torch.manual_seed(0)
    model, train, test = Functional(8, 24), moons(100, 1), moons(1000, 2)
    outcome = train_full_batch(
        model, train, BCE, Recipe(gate=Gate(closed=False), steps=20, ridge=1e-3)
    )

    assert 20 == outcome.steps
    assert _accuracy(model, test) >= 0.9


def test_a_residual_net_with_normalisation_learns() -> None:
    torch.manual_seed(0)
    model, batch = Residual(), images(64)
    outcome = train_full_batch(model, batch, BCE)
    model.eval()

    assert 13 == outcome.steps
    assert _accuracy(model, batch) >= 0.8


def test_the_ridge_is_chosen_by_the_judge() -> None:
    model, batch = chain(4, 12), moons(60, 0)
    calls: list[int] = []

    def judge() -> float:
        calls.append(1)
        return abs(len(calls) - 4)

    assert 1e-3 == train_full_batch(model, batch, BCE, judge=judge).ridge
    assert 6 == len(calls)


def test_what_cannot_be_aligned_is_refused_before_training() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    layers = [nn.Linear(2, 4), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 1)]
    model, batch = nn.Sequential(*layers), moons(20, 0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    with pytest.raises(CannotRewrite, match="shares its weights") as caught:
        train_full_batch(model, batch, BCE)
    assert "use --setting mode=sweep, which needs neither" == caught.value.hint
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


# ---------------------------------------------------------------- the loop


def _setup(
    model: nn.Module,
    batch: Batch,
    settings: dict[str, str],
    *,
    epochs: int = 60,
    validate: Callable[[], Scores] | None = None,
    said: list[str] | None = None,
) -> Setup:
    lines = [] if said is None else said
    return Setup(
        model=model,
        loss=BCE,
        example=batch,
        options=RetrainOptions(
            method="rai", lr=0.03, settings=settings, schedule="constant"
        ),
        epochs=epochs,
        steps=epochs,
        device=torch.device("cpu"),
        observe=lambda: None,
        validate=validate,
        say=lines.append,
    )


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(v) for v in state] if isinstance(state, list) else state


@pytest.mark.parametrize("mode", ["sweep", "table", "infer", "reference"])
def test_every_mode_learns_in_the_loop(mode: str) -> None:
    model, batch = chain(3, 16), moons(60, 0)
    said: list[str] = []
    settings = {"mode": mode, **({} if mode == "reference" else {"optimizer": "adam"})}
    method = ENTRY.build(_setup(model, batch, settings, said=said))
    start = BCE.function(model(*batch.args), batch.labels).item()
    for _ in range(150):
        method.step(batch, rows=torch.arange(60), parts=1)
    delivered = method.finish()
    end = BCE.function(model(*batch.args), batch.labels).item()

    assert end < 0.9 * start
    assert (mode == "reference") == delivered
    assert said[0] == (
        "RAI cuts the model at 3 places between its 4 weight layers: from '0 linear' "
        "to '4 linear'"
    )
    assert all(isinstance(v, float) for v in method.figures().values())


@pytest.mark.parametrize("mode", ["sweep", "table", "infer", "reference"])
def test_resumed_training_is_bit_equal(mode: str) -> None:
    batch, finals, figures = moons(40, 0), [], []
    for resumed in (False, True):
        model = chain(4, 8)
        method = ENTRY.build(_setup(model, batch, {"mode": mode}))
        for step in range(12):
            if resumed and step == 7:
                weights = copy.deepcopy(model.state_dict())
                state = _copied(method.state_dict())
                model = chain(4, 8, seed=5)
                model.load_state_dict(weights)
                method = ENTRY.build(_setup(model, batch, {"mode": mode}))
                method.load_state_dict(state)
            method.step(batch, rows=torch.arange(40), parts=1)
        figures.append(method.figures())
        method.finish()
        finals.append(list(model.parameters()))

    assert figures[0] == figures[1]
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


def test_a_skipped_step_changes_nothing() -> None:
    model, batch = chain(3, 8), moons(20, 0)
    method = ENTRY.build(_setup(model, batch, {"mode": "table"}))
    rows = torch.arange(20)
    method.step(batch, rows=rows, parts=1)
    weights = copy.deepcopy(model.state_dict())
    table = _copied(method.state_dict()["table"])
    # At the second visit the output stage sees targets, not the inputs.
    broken = Batch(args=batch.args, labels=batch.labels * float("nan"), size=20)
    outcome = method.step(broken, rows=rows, parts=1)
    after = method.state_dict()["table"]

    assert outcome.skipped
    assert all(torch.equal(weights[n], t) for n, t in model.state_dict().items())
    assert torch.equal(table["visits"], after["visits"])
    assert all(
        torch.equal(a, b)
        for old, new in zip(table["rows"], after["rows"], strict=True)
        for a, b in zip(old, new, strict=True)
    )


def test_the_gap_stands_in_the_figures_of_every_epoch() -> None:
    model, batch = chain(3, 8), moons(20, 0)
    method = ENTRY.build(_setup(model, batch, {"mode": "reference"}))
    method.step(batch, rows=torch.arange(20), parts=1)

    assert {
        "relaxed loss",
        "forward loss",
        "relaxation gap",
        "largest residual",
        "least label share",
        "noise at the start",
    } == set(method.figures())


def test_the_reference_mode_sees_all_samples_and_knows_its_steps() -> None:
    full = RetrainOptions(method="rai", settings={"mode": "reference"})
    model = chain(5, 8)

    assert ENTRY.whole(full)
    assert not ENTRY.whole(RetrainOptions(method="rai"))
    assert 15 == ENTRY.epochs(model, full)  # Five cuts and ten more.
    assert ("readout",) == ENTRY.controls


def test_too_few_epochs_are_told() -> None:
    said: list[str] = []
    batch = moons(20, 0)
    ENTRY.build(_setup(chain(3, 8), batch, {"mode": "reference"}, epochs=5, said=said))

    assert said[1] == (
        "5 epochs are too few: the label signal needs 3 steps to the first layer, "
        "and the recipe 13"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "full"}, "setting mode of rai is 'full'"),
        ({"widow": "3"}, "rai has no setting 'widow'"),
        ({"mode": "reference", "window": "3"}, "window is 3, and a stage needs 10"),
        ({"scale": "-1"}, "scale is -1.0"),
        ({"mode": "infer", "inner": "-2"}, "inner of rai is '-2'"),
        ({"mode": "reference", "ridge": "-2"}, "ridge of rai is '-2'"),
        ({"mode": "reference", "penalty": "-1"}, "penalty of rai is '-1'"),
        ({"mode": "reference", "steps": "0"}, "steps of rai is '0'"),
        ({"mode": "table", "weight": "-2"}, "weight of rai is '-2'"),
        ({"mode": "table", "weight": "0"}, "weight of rai is '0'"),
        ({"mode": "table", "rate": "-2"}, "rate of rai is '-2'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        ENTRY.build(_setup(chain(3, 8), moons(20, 0), settings))
