"""A method that converts first: epoch 0 stays the model as it came."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import vgaudit
from tests.reports_html.reading import read
from tests.training.courses import furnished, net, options, same, samples, trained
from tests.training.test_training_resume import in_pieces, timeless
from vgaudit.nn import PiecewiseLinear
from vgaudit.reports.retraining import parse, render
from vgaudit.training import methods

HARMLESS = {"lr": 1e-9, "epochs": 2, "valid_split": 0.5}
"""Steps too small to make up for what the conversion costs."""

NETS = """
from torch import nn


def quick():
    return nn.Sequential(
        nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3)
    )
"""


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    """A sigmoid net that answers well, which it no longer does with tanh in place."""
    model = net()
    x, y = samples(400, seed=7)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def scores(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Returns loss and accuracy by plain PyTorch."""
    with torch.no_grad():
        output = model.eval()(x)
    accuracy = (output.argmax(1) == y).double().mean().item()
    return F.cross_entropy(output, y).item(), accuracy


def held() -> tuple[Tensor, Tensor]:
    return samples(200, seed=1)


def adact(model: nn.Module, **given: Any) -> Any:
    asked = options("adact", **{**HARMLESS, "valid_split": 0.1, **given})
    return vgaudit.retrain(model, samples(), valid=held(), options=asked)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Copies of what the method converts models to, before any training."""
    found: list[nn.Module] = []
    entry = methods._GRADIENT["adact"]

    def prepare(*args: Any) -> Any:
        prepared = entry.prepare(*args)
        found.append(copy.deepcopy(prepared.model))
        return prepared

    monkeypatch.setitem(methods._GRADIENT, "adact", replace(entry, prepare=prepare))
    return found


def test_epoch_0_is_the_model_as_it_came(learned, made) -> None:
    done = adact(learned, controls=("adam",)).retraining
    came, (converted,) = done.run.epochs[0], made

    loss, accuracy = scores(copy.deepcopy(learned), *held())
    assert came.valid_loss == pytest.approx(loss, rel=1e-5)
    assert came.metric == pytest.approx(accuracy)
    assert done.controls[0].epochs[0].valid_loss == came.valid_loss
    assert done.controls[0].converted is None
    assert came.attenuation == pytest.approx(done.before.flow.attenuation.value)

    worse, fewer = scores(converted, *held())
    assert worse > 2 * loss
    assert fewer < accuracy - 0.1
    assert done.run.converted.valid_loss == pytest.approx(worse, rel=1e-5)
    assert done.run.converted.metric == pytest.approx(fewer)
    # Steps as small as these leave the gradient as the conversion made it.
    moved = done.run.converted.attenuation
    assert moved == pytest.approx(done.run.epochs[1].attenuation, abs=1e-3)
    assert abs(moved - came.attenuation) > 0.05


def test_a_training_that_only_harms_gives_the_model_back_unconverted(learned) -> None:
    given = {name: x.clone() for name, x in learned.state_dict().items()}
    done = adact(learned)
    run = done.retraining.run

    assert run.best == 0
    assert same(done.model, given)
    assert same(learned, given)
    assert not any(isinstance(m, PiecewiseLinear) for m in done.model.modules())
    assert done.retraining.after.flow.attenuation == (
        done.retraining.before.flow.attenuation
    )
    said = render(done.retraining, None, form="text")
    came, worse = (f"{100 * e.metric:.1f} %" for e in (run.epochs[0], run.converted))
    moved = f"the conversion alone took accuracy from {came} to {worse}"
    assert f"{moved}, before any training" in said
    assert "no epoch was better than the model as it came: it is given back" in said


def test_one_that_helps_is_still_measured_from_the_model_as_it_came(learned) -> None:
    x, y = held()
    spoilt = copy.deepcopy(learned)
    with torch.no_grad():
        spoilt[-1].weight.neg_()
    done = adact(spoilt, lr=0.02, epochs=8)
    run = done.retraining.run

    assert run.best > 0
    assert sum(isinstance(m, PiecewiseLinear) for m in done.model.modules()) == 2
    assert run.epochs[0].metric == pytest.approx(scores(spoilt, x, y)[1])
    assert run.kept.metric == pytest.approx(scores(done.model, x, y)[1])
    page = read(render(done.retraining, None, form="html"))
    before, after = (f"{100 * e.metric:.1f} %" for e in (run.epochs[0], run.kept))
    assert f"Accuracy {before} before, {after} after." in page.text
    table = next(t for t in page.every("table") if "kept epoch" in str(t.attributes))
    assert ["", "before", "converted", "adact"] == table.rows()[0]
    cells = [f"{100 * e.metric:.1f} %" for e in (run.epochs[0], run.converted)]
    assert ["accuracy", *cells, after] == table.rows()[1]


def test_without_validation_the_last_epoch_is_kept(learned) -> None:
    done = trained(learned, options("adact", **{**HARMLESS, "valid_split": 0.0}))
    run = done.retraining.run

    assert run.best == 2
    assert any(isinstance(m, PiecewiseLinear) for m in done.model.modules())
    assert run.epochs[0].valid_loss is run.converted.valid_loss is None
    before = done.retraining.before.flow.attenuation.value
    assert run.epochs[0].attenuation == pytest.approx(before)
    assert "the conversion alone" not in render(done.retraining, None, form="text")


def test_the_classic_solver_begins_with_the_model_as_it_came() -> None:
    model = net(depth=1)
    asked = options("adact", solver="classic", epochs=2, valid_split=0.5)
    run = trained(model, asked).retraining.run

    alone = trained(model, options("adam", valid_split=0.5)).retraining.run
    assert run.epochs[0] == alone.epochs[0]
    assert run.converted.valid_loss != run.epochs[0].valid_loss


def test_a_model_with_such_activations_is_not_converted(learned) -> None:
    ready = vgaudit.convert(learned, to="adact").model
    done = trained(ready, options("adact", **HARMLESS)).retraining

    assert done.run.converted is None
    assert "converted" not in render(done, None, form="text")


@pytest.mark.parametrize("every", [1, 5])
def test_what_is_given_back_survives_a_resume(learned, tmp_path, every) -> None:
    asked = options("adact", controls=("adam",), **HARMLESS)
    whole = trained(learned, asked)
    done, pieces = in_pieces(lambda: learned, asked, tmp_path / "run", every=every)

    assert pieces > 1
    assert whole.retraining.run.best == 0
    assert same(done.model, learned.state_dict())
    assert timeless(done.retraining.run) == timeless(whole.retraining.run)
    assert done.retraining.against == whole.retraining.against


def test_what_is_written_has_no_recipe_of_a_conversion(
    shell, learned, tmp_path: Path
) -> None:
    place = furnished(tmp_path, NETS)
    save_file(learned.state_dict(), place / "good.safetensors")
    out, arch = place / "out.safetensors", f"{place}/nets.py:quick"
    words = ("retrain", str(place / "good.safetensors"), "--arch", arch)
    words += ("--with", "adact")
    words += ("--data", str(place / "data.npz"), "--format", "json", "-o", str(out))
    first = shell(*words, "--epochs", "1", "--valid-split", "0")
    assert first.code == 0, first.err
    assert (place / "out.recipe.json").is_file()

    done = shell(*words, "--epochs", "1", "--lr", "1e-9", "--force")
    assert done.code == 0, done.err
    record = json.loads(done.out)["retraining"]
    assert record["run"]["best"] == 0
    assert record["run"]["converted"]["spread"] is not None
    assert parse(record).run.converted is not None
    assert record["written"] == [str(out)]
    assert not (place / "out.recipe.json").exists()
    state = load_file(out)
    assert all(torch.equal(x, state[n]) for n, x in learned.state_dict().items())
    assert state.keys() == learned.state_dict().keys()
    assert same(vgaudit.load(out, arch=arch), learned.state_dict())
