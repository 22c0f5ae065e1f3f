"""The oracle's pieces against what must be so by construction."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.build import Spec, build
from benchmarks.detection.oracle import blown_up, dead, label, layer_groups
from benchmarks.detection.train import Run, train


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def mlp(depth: int, activation: str = "tanh", init: str = "default") -> Spec:
    return Spec(
        name=f"test-{depth}-{activation}-{init}",
        family="mlp",
        task="blobs",
        depth=depth,
        width=16,
        activation=activation,
        init=init,
    )


def test_a_shallow_net_is_healthy_under_both_optimizers() -> None:
    assert {label(mlp(1), k).label for k in ("sgd", "adam")} == {"healthy"}  # type: ignore[arg-type]


def test_frozen_parameters_stay_and_the_others_move() -> None:
    still = train(mlp(2), Run(kind="sgd", rate=0.1, steps=25, frozen=("0.weight",)))

    assert still.still == ()  # everything that was trained has moved
    everything = {name for name, _ in build(mlp(2)).named_parameters()}
    frozen = train(
        mlp(2), Run(kind="sgd", rate=0.1, steps=25, frozen=everything - {"0.weight"})
    )
    assert frozen.still == ()


def test_an_absurd_rate_diverges_and_a_usual_one_does_not() -> None:
    wild = train(mlp(2, "relu"), Run(kind="sgd", rate=1e6, steps=50))
    tame = train(mlp(2, "relu"), Run(kind="sgd", rate=0.1, steps=50))

    assert wild.diverged
    assert not wild.learned
    assert not tame.diverged


def test_no_step_explains_nothing_new() -> None:
    start = train(mlp(2), Run(kind="adam", rate=1e-3, steps=0))

    assert start.explained == start.best < 0.05
    assert len(start.still) == 6


def test_dead_is_told_from_collapsed() -> None:
    assert dead(mlp(3, "relu", "dead"))
    assert not dead(mlp(12, "sigmoid"))  # its signal fades, but no layer kills it
    assert not dead(mlp(2, "relu"))


@pytest.mark.parametrize("depth", [0, 1, 2, 5, 9])
def test_groups_hold_every_weight_once_and_in_order(depth: int) -> None:
    groups = layer_groups(build(mlp(depth)))
    flat = [name for group in groups for name in group]

    assert flat == [str(2 * i) for i in range(depth + 1)]
    assert groups[-1] == (str(2 * depth),)
    assert len(groups) == min(depth, 4) + 1


def test_a_module_without_submodules_is_named_by_its_parameters() -> None:
    spec = Spec(
        name="f", family="functional", task="blobs", depth=2, width=8, activation="tanh"
    )

    assert layer_groups(build(spec))[-1] == ("weights.2",)


def test_blown_up_is_told_by_the_untrained_loss() -> None:
    assert blown_up(mlp(6, "relu", "huge"))
    assert not blown_up(mlp(6, "relu"))
    assert not blown_up(mlp(12, "sigmoid"))
