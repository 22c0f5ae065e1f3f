"""Networks, tasks and measures of the papers' studies, against closed forms."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.papers import arnn_architectures, sdagd_table1
from benchmarks.papers.adact_nets import ARMS, Apl, split_classes, start_, vgg
from benchmarks.papers.adact_vgg import within
from benchmarks.papers.arnn_nets import architecture, mlp, rotate_, weighted
from benchmarks.papers.arnn_regression import friedman
from benchmarks.papers.pictures import Images
from benchmarks.papers.study import Study
from vgaudit.nn import AutoRotation, Limit


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("A", [(16, 75), (8, 16 * 9), (15, 288), (10, 15)]),
        (
            "B",
            [
                *((8, 75), (8, 72), (4, 72)),
                *((10, 64), (10, 10), (10, 10), (10, 10), (10, 10)),
            ],
        ),
    ],
)
def test_architectures_have_the_sizes_of_the_paper(
    name: str, sizes: list[tuple[int, int]]
) -> None:
    net = architecture(name, "sigmoid", 0, bn=True)
    assert [tuple(w.weight.flatten(1).shape) for w in weighted(net)] == sizes
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_arms_start_from_the_same_weights() -> None:
    plain = architecture("B", "sigmoid", 3, bn=False)
    normed = architecture("B", "relu", 3, bn=True)
    other = architecture("B", "sigmoid", 4, bn=False)
    for a, b in zip(weighted(plain), weighted(normed), strict=True):
        assert torch.equal(a.weight, b.weight)
    assert not torch.equal(next(weighted(plain)).weight, next(weighted(other)).weight)
    bound = math.sqrt(6 / (75 + 8 * 25))
    assert float(next(weighted(plain)).weight.abs().max()) <= bound


@pytest.mark.parametrize("output", [False, True])
def test_rotation_spares_the_output_layer_unless_told(output: bool) -> None:
    net = mlp([4, 3, 3, 2], "sigmoid", 0)
    rotate_(net, lambda n: Limit(5.0), data=(0, 1), hidden=(0, 1), output=output)
    kinds = [isinstance(layer, AutoRotation) for layer in weighted(net)]
    assert kinds == [True, True, output]


def test_measures_of_gradients() -> None:
    gradients = [[9.0, 9.0], [1e-2, 1e-4], [1e-1, 1e-3]]
    outcome = {"gradients": gradients, "scores": [12.0, 31.0, 50.0]}
    assert arnn_architectures.uniformity(outcome) == pytest.approx(1.0)
    assert arnn_architectures.stability(outcome) == pytest.approx(0.5)
    assert arnn_architectures.convergence(outcome) == 2
    dead = {"gradients": [[1.0], [0.0], [0.0]], "scores": [10.0, 9.0]}
    assert arnn_architectures.stability(dead) == 0.0
    assert arnn_architectures.convergence(dead) == 1


def test_friedman_one() -> None:
    x, y = friedman(50, 0, noise=0.0)
    a = x.double().numpy()
    expected = (
        10 * np.sin(np.pi * a[:, 0] * a[:, 1])
        + 20 * (a[:, 2] - 0.5) ** 2
        + 10 * a[:, 3]
        + 5 * a[:, 4]
    )
    np.testing.assert_allclose(y[:, 0].numpy(), expected, rtol=1e-5)
    # The moments that the study divides by.
    _, many = friedman(200_000, 1, noise=0.0)
    assert many.mean().item() == pytest.approx(14.4, abs=0.05)
    assert many.std().item() == pytest.approx(4.9, abs=0.05)


def test_apl_is_its_formula() -> None:
    unit = Apl(3)
    x = torch.randn(5, 3, 2, 2)
    expected = x.clamp_min(0)
    for s in range(2):
        for c in range(3):
            a, b = unit.slopes[s, c], unit.hinges[s, c]
            expected[:, c] += a * (b - x[:, c]).clamp_min(0)
    torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_activations_of_a_seed_share_weights(blocks: int) -> None:
    nets = [vgg(arm, blocks, convs=2) for arm in ARMS]
    for net in nets:
        start_(net, 5)
    x = torch.rand(2, 3, 32, 32)
    first = [p for p in nets[0].parameters() if p.dim() > 1]
    for net in nets[1:]:
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert all(
            torch.equal(a, layer.weight) for a, layer in zip(first, layers, strict=True)
        )
    by_name = dict(zip(ARMS, nets, strict=True))
    torch.testing.assert_close(
        by_name["ReLU"](x), by_name["PiecewiseLinear from ReLU"](x)
    )


def test_classes_are_counted_anew() -> None:
    labels = torch.tensor([0, 5, 9, 4])
    x = torch.arange(4.0)
    chosen = split_classes(Images(x, labels, x, labels), range(5, 10))
    assert chosen.train.tolist() == [1.0, 2.0]
    assert chosen.train_labels.tolist() == [0, 4]


def test_accuracy_in_another_ones_time() -> None:
    slow = {"cpu": 8.0, "scores": [20.0, 30.0, 40.0, 50.0]}
    assert within([slow], [8.0]) == [50.0]
    assert within([slow], [5.9]) == [30.0]
    assert within([slow], [1.0]) == [10.0]


def test_table_one_chooses_by_the_geometric_mean(tmp_path: Path) -> None:
    options = argparse.Namespace(
        out=tmp_path / "r.jsonl", device="cpu", minutes=1.0, settings=2, width=100,
        activations=["sigmoid"], hidden=[1, 2], epochs=5, loss="cross-entropy",
        tune_hidden=None, tune_epochs=1, start="xavier",
    )  # fmt: skip
    errors = {(0.1, 1): 1.0, (0.1, 2): 9.0, (0.05, 1): 2.0, (0.05, 2): 4.0}

    def train(run: sdagd_table1.Run) -> dict[str, float]:
        assert (run.stage, run.epochs) == ("tune", 1)
        return {"error": errors[run.setting, run.hidden]}

    runs = Study(options, sdagd_table1.Run, train)
    # 3 against 2.83: the arithmetic means would be 5 and 3.
    assert sdagd_table1.choose("sdagd", options, runs) == 0.05
    errors[0.1, 2] = 7.0
    options.out = tmp_path / "other.jsonl"
    again = Study(options, sdagd_table1.Run, train)
    assert sdagd_table1.choose("sdagd", options, again) == 0.1


def test_the_start_that_keeps_the_signal_centres_every_sigmoid() -> None:
    run = sdagd_table1.Run(
        "test", "sdagd", 0.1, "sigmoid", 50, 20, 3, "cross-entropy", seed=0
    )
    plain = sdagd_table1.network(run)
    centred = sdagd_table1.network(replace(run, start="signal"))
    for before, after in list(zip(plain, centred, strict=True))[2::2]:
        assert torch.equal(after.weight, 4 * before.weight)
        half = torch.full((1, 20), 0.5)
        torch.testing.assert_close(
            after(half), torch.zeros(1, len(after.bias)), atol=1e-6, rtol=0
        )
    x = torch.rand(600, 784)
    data = Images(x, x, x, x)
    found = sdagd_table1.signals(run, data)
    kept = sdagd_table1.signals(replace(run, start="signal"), data)
    # 4⁻⁵⁰ = 1e-30; what float32 shows of it is rounding.
    assert found["float64"] < 1e-15 < 1e-9 < found["float32"] < 1e-6
    assert kept["float64"] == pytest.approx(kept["float32"], rel=0.01)
    assert kept["float32"] > 0.01
