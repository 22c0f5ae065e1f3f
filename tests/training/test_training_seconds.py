"""Seconds of a training: those of its epochs, whatever came before them."""

from __future__ import annotations

from types import SimpleNamespace

from tests.training.courses import net, options, trained
from tests.training.test_training_resume import in_pieces
from vgaudit.training import methods, optimizers, runner, stepper
from vgaudit.training.method import Entry, Method, Setup

STEPS = 7
"""Steps of an epoch: 108 samples in batches of 16."""


def test_seconds_are_those_of_the_steps_alone(tmp_path, monkeypatch) -> None:
    """Under a clock that a step moves by 1 and the building of a method by 1000."""
    now = [0.0]

    class Timed(stepper.Stepper):
        def _step(self, *args: object) -> None:
            super()._step(*args)  # type: ignore[arg-type]
            now[0] += 1.0

    def build(setup: Setup) -> Method:
        now[0] += 1000.0
        return optimizers.adam(setup)

    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(runner, "Stepper", Timed)
    monkeypatch.setitem(methods._GRADIENT, "adam", Entry(build=build))
    asked = options("adam")
    whole = trained(net(), asked).retraining.run
    pieces, count = in_pieces(net, asked, tmp_path / "run", every=4)

    assert count > 0
    for run in (whole, pieces.retraining.run):
        assert [epoch.seconds for epoch in run.epochs] == [0.0, *[float(STEPS)] * 3]
