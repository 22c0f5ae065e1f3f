"""Every named sickness is heard, at the right layer; health is silent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fixtures import batches as inputs
from fixtures import models
from tests.verdicts.judging import verdict
from vgaudit.data.batch import Batch
from vgaudit.findings import Finding, Optimizer, Report
from vgaudit.job import ProbeOptions
from vgaudit.probe import probe

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def mlp(kind: str, depth: int, seed: int) -> nn.Sequential:
    """Width 64 throughout, PyTorch's default initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(64, 64), ACTIVATIONS[kind]()]
        return nn.Sequential(*layers, nn.Linear(64, 10))


def noise(
    shape: tuple[int, ...] = (64,), *, size: int = 16, seed: int = 0
) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(args=(torch.randn(size, *shape, generator=generator),), size=size)
        for _ in range(4)
    ]


def found(report: Report, code: str) -> list[Finding]:
    return [f for f in report.findings if f.code == code and not f.unclear]


@pytest.mark.parametrize(
    ("kind", "depth", "optimizer", "level"),
    [
        ("sigmoid", 5, "sgd", "error"),
        ("sigmoid", 10, "sgd", "error"),
        ("sigmoid", 10, "adam", "error"),
        ("sigmoid", 20, "adam", "error"),
        ("sigmoid", 50, "sgd", "error"),
        ("tanh", 5, "sgd", None),
        ("tanh", 10, "sgd", None),
        ("tanh", 10, "adam", None),
        ("tanh", 20, "sgd", "error"),
        ("relu", 5, "sgd", None),
        ("relu", 10, "sgd", "error"),
        ("relu", 10, "adam", "warning"),
        ("relu", 20, "sgd", "error"),
        ("relu", 20, "adam", "warning"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_default_initialised_mlps(
    kind: str, depth: int, optimizer: Optimizer, level: str | None, seed: int
) -> None:
    report = verdict(mlp(kind, depth, seed), noise(), optimizer=optimizer)

    levels = [finding.level for finding in found(report, "VG101")]
    assert ([level] if level else []) == levels


@pytest.mark.parametrize("kind", sorted(ACTIVATIONS))
def test_depth_fifty_is_measured_beyond_the_range_of_float32(kind: str) -> None:
    """The oracle is plain autograd in float64 on the same net and cotangent."""
    model = mlp(kind, 50, seed=0)
    batch = noise()[0]
    flow = probe(model, [batch], options=ProbeOptions(seed=3))

    from vgaudit.probe.step import cotangent

    wide = mlp(kind, 50, seed=0).double()
    hidden: Tensor = wide[0](batch.args[0].double())
    output: Tensor = wide[1:](hidden)
    vector = cotangent(output, 3, 0, 0)
    (gradient,) = torch.autograd.grad(output, hidden, vector)
    decades = math.log10(float(gradient.norm())) - math.log10(float(vector.norm()))

    assert flow.attenuation is not None
    assert flow.attenuation.value == pytest.approx(decades, abs=0.02)


def test_a_first_kernel_with_a_sixteen_thousandth_of_the_last_is_found() -> None:
    report = verdict(models.sigmoid_mlp(), noise())
    (finding,) = found(report, "VG101")

    assert report.audit is not None
    figures = {p.name: p.grad_rms for p in report.audit.flow.parameters}
    assert 1 / 60_000 < figures["layers.0.weight"] / figures["head.weight"] < 1 / 4_000
    assert finding.level == "error"
    assert finding.layers[0] == "layers.0"


def test_small_weights_vanish() -> None:
    report = verdict(models.small_weights_mlp(), noise())

    assert found(report, "VG101")[0].layers[0] == "layers.0"


def test_large_weights_explode() -> None:
    report = verdict(models.exploding_mlp(), noise())

    assert [f.level for f in found(report, "VG201")] == ["error"]
    assert not found(report, "VG101")


def test_dead_relus_are_named_layer_by_layer() -> None:
    report = verdict(models.dead_relu_mlp(), noise())

    dead = [finding.layer for finding in found(report, "VG302")]
    assert ["layers.1", "layers.3", "layers.5"] == dead
    assert found(report, "VG103")


def test_saturated_layers_are_named() -> None:
    report = verdict(models.saturated_tanh_mlp(), noise())

    saturated = [finding.layer for finding in found(report, "VG301")]
    assert [f"layers.{i}" for i in (1, 3, 5, 7, 9, 11)] == saturated


def test_a_detached_branch_is_disconnected_not_vanishing() -> None:
    report = verdict(models.detached_branch(), noise(inputs.SHAPES["detached_branch"]))
    disconnected = found(report, "VG104")

    assert disconnected
    assert disconnected[0].level == "error"
    assert not found(report, "VG101")


def test_a_zero_initialised_head_is_information() -> None:
    shape = inputs.SHAPES["zero_head_vit"]
    report = verdict(models.zero_head_vit(), noise(shape, size=4))

    assert report.status == "pass"
    assert {f.level for f in report.findings} <= {"info"}
    assert report.audit is not None
    assert [b.replaced for b in report.audit.flow.blockers] == [True]
    said = found(report, "VG103")
    assert said
    assert "head" in said[0].message


def test_a_constant_layer_scale_is_no_decay() -> None:
    report = verdict(models.layer_scale_net(), noise(inputs.SHAPES["layer_scale_net"]))

    assert report.status == "pass"
    assert not [f for f in report.findings if f.level == "error"]


def test_a_long_branch_beside_a_skip_is_judged_by_its_own_path() -> None:
    """Ten sigmoid layers under one skip: the trunk is healthy, the branch is not."""

    class Skipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(64, 64)
            self.branch = mlp("sigmoid", 10, seed=0)[:-1]
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            result: Tensor = self.head(x + self.branch(x))
            return result

    report = verdict(Skipped(), noise())

    assert report.audit is not None
    assert report.audit.flow.attenuation is not None
    assert report.audit.flow.attenuation.value > -2
    assert "branch.0" in found(report, "VG101")[0].layers


def test_untouched_batchnorm_in_eval_mode_is_uncalibrated() -> None:
    from tests.verdicts.judging import audit_of
    from vgaudit.judge import judge

    shape = inputs.SHAPES["healthy_residual_net"]
    model = models.healthy_residual_net()
    flow = probe(model, noise(shape), options=ProbeOptions(mode="eval"))
    report = judge(audit_of(flow))

    assert report.status == "inconclusive"
    assert report.exit_code == 4
    assert {"VG004"} == {f.code for f in report.findings if f.level != "info"}
