"""What goes wrong late costs nothing that was trained before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.courses import Late, net, options, same, samples, trained
from vgaudit.errors import CannotRun
from vgaudit.plain import to_plain
from vgaudit.reports.retraining import render
from vgaudit.training import methods
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import RunFolder
from vgaudit.training.method import Entry

STEPS = 7
"""Steps of an epoch: 108 samples in batches of 16."""


def steep() -> nn.Module:
    """Returns a seeded net that a giant step takes beyond all numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *inner)


@pytest.mark.parametrize("valid_split", [0.1, 0.0])
def test_a_late_divergence_keeps_the_best_epoch_before(valid_split) -> None:
    asked = options(
        "adam", schedule="constant", valid_split=valid_split, most_skipped=3, lr=0.01
    )
    size = 8 if valid_split == 0.0 else STEPS
    late = trained(Late(4 * size + 3), replace(asked, epochs=12))
    short = trained(Late(1000), replace(asked, epochs=4))
    run = late.retraining.run

    assert same(late.model, short.model.state_dict())
    assert [e.number for e in run.epochs] == [0, 1, 2, 3, 4]
    assert run.best == short.retraining.run.best > 0
    assert run.stopped.startswith("in epoch 5 of 12, where it diverged: 3 steps")
    assert "the loss is nan" in run.stopped
    for form in ("text", "json", "html"):
        assert "in epoch 5 of 12, where it diverged" in render(
            late.retraining, None, form=form
        )


def test_a_divergence_in_the_first_epoch_is_an_error() -> None:
    with pytest.raises(CannotRun, match=r"adam: 3 steps in a row.*the loss is nan"):
        trained(Late(STEPS - 3), options("adam", most_skipped=3, epochs=9))


@pytest.mark.parametrize("valid_split", [0.1, 0.0])
def test_a_run_that_only_diverges_is_an_error(valid_split) -> None:
    asked = options("sgd", lr=1e18, most_skipped=20, valid_split=valid_split, epochs=9)
    with pytest.raises(CannotRun, match=r"sgd: 20 steps in a row.*the loss is nan"):
        trained(steep(), asked)


def test_an_epoch_without_a_finite_loss_is_never_the_best() -> None:
    x, _ = samples()
    # Whatever gives NaN for every class says class 0, which is always right here.
    y = torch.zeros(len(x), dtype=torch.long)
    model = steep()
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([-5.0, 5.0, 0.0]))
    asked = options("sgd", lr=1e18, epochs=2, most_skipped=50, schedule="constant")
    done = trained(model, asked, data=(x, y))
    run = done.retraining.run

    assert not any(math.isfinite(e.valid_loss) for e in run.epochs[1:])
    assert run.epochs[-1].metric == 1.0 > run.epochs[0].metric
    assert run.best == 0
    assert same(done.model, model.state_dict())


@pytest.mark.parametrize("saved", [False, True])
def test_a_control_that_diverges_costs_no_treatment(tmp_path, saved) -> None:
    asked = options("adam", controls=("sgd:lr=1e18", "readout"), most_skipped=3)
    alone = trained(steep(), replace(asked, controls=("readout",)))
    around = Surroundings(folder=RunFolder(tmp_path / "run") if saved else None)
    (tmp_path / "run").mkdir()
    both = trained(steep(), asked, around)
    found = both.retraining
    broken, readout = found.controls

    assert same(both.model, alone.model.state_dict())
    assert found.run.best == alone.retraining.run.best
    assert "3 steps in a row could not be taken" in broken.failed
    assert readout.failed == ""
    assert readout.kept.valid_loss == alone.retraining.controls[0].kept.valid_loss
    outcomes = {judged.control: judged.outcome for judged in found.against}
    assert outcomes["sgd:lr=1e18"] == ""
    assert outcomes["readout"] == alone.retraining.against[0].outcome
    for form in ("text", "json", "html"):
        shown = render(found, None, form=form)
        assert "the control sgd:lr=1e18 failed, and nothing can be compared" in shown
        assert "3 steps in a row could not be taken" in shown
    assert "failed" in json.dumps(to_plain(broken))


def built(method: str, build: Callable[[object], object]) -> Entry:
    """Returns the entry of a method, which is built in another way."""
    return replace(methods._GRADIENT[method], build=build)  # type: ignore[arg-type]


def test_a_control_that_cannot_begin_is_told(monkeypatch) -> None:
    def build(_setup: object) -> object:
        raise RuntimeError("no such kernel\non this device")

    monkeypatch.setitem(
        methods._GRADIENT, "sgd", replace(methods._GRADIENT["sgd"], build=build)
    )
    done = trained(net(), options("adam", controls=("sgd",)))
    (control,) = done.retraining.controls

    assert control.failed == "RuntimeError: no such kernel"
    assert same(done.model, trained(net(), options("adam")).model.state_dict())
    text = render(done.retraining, None, form="text")
    assert "sgd failed, and nothing can be compared with it: RuntimeError" in text


def test_what_fails_after_the_treatment_leaves_its_checkpoint(
    tmp_path, monkeypatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    asked = options("adam", controls=("sgd",))

    def build(_setup: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, folder.held():
        patched.setitem(
            methods._GRADIENT, "sgd", replace(methods._GRADIENT["sgd"], build=build)
        )
        with pytest.raises(KeyboardInterrupt):
            trained(net(), asked, Surroundings(folder=folder))

    assert folder.holds_checkpoint()

    def again(_setup: object) -> object:
        raise AssertionError("the treatment is trained a second time")

    with monkeypatch.context() as patched, folder.held():
        patched.setitem(
            methods._GRADIENT, "adam", replace(methods._GRADIENT["sgd"], build=again)
        )
        done = trained(net(), asked, Surroundings(folder=folder, resume=True))
    whole = trained(net(), asked)
    assert same(done.model, whole.model.state_dict())
    assert done.retraining.against == whole.retraining.against


def test_a_scan_that_fails_after_the_training_costs_no_weights() -> None:
    class Once(nn.Module):
        """Fails wherever its weights are no longer those it came with."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.first = float(self.inner[0].weight.detach().sum())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moved = float(self.inner[0].weight.detach().sum()) != self.first
            if moved and torch.is_grad_enabled() and probing:
                raise ValueError("a kernel is missing")
            return self.inner(x)

    probing: list[str] = []
    around = Surroundings(
        say=lambda phase: probing.append(phase) if phase == "measuring after" else None
    )
    done = trained(Once(), options("adam"), around)

    assert done.audits is None
    assert same(done.model.inner, trained(net(), options("adam")).model.state_dict())
    (note,) = [n for n in done.retraining.notes if "scan after" in n]
    assert "a kernel is missing" in note
