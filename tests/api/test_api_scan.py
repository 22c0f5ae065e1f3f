"""The Python API, used as a reader of the README would."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import vgaudit
from fixtures import models
from vgaudit.errors import BadConfig, CannotRun, NothingMeasured
from vgaudit.reports import REPORTS


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 64, generator=generator)
    return x, torch.randint(0, 10, (size,), generator=generator)


def test_a_sick_model_fails_and_a_healthy_one_passes() -> None:
    sick = vgaudit.scan(models.deep_sigmoid_mlp(), batch(), loss="cross-entropy")
    healthy = vgaudit.scan(models.healthy_relu_mlp(), batch(), loss="cross-entropy")

    assert (sick.status, sick.exit_code) == ("fail", 1)
    assert "VG101" in {finding.code for finding in sick.findings}
    assert (healthy.status, healthy.exit_code) == ("pass", 0)


def test_every_way_to_give_data_measures_the_same_loss() -> None:
    x, y = batch()
    model = models.healthy_relu_mlp()
    given = {
        "tuple": (x, y),
        "list": [(x, y)],
        "loader": DataLoader(TensorDataset(x, y), batch_size=16),
    }
    expected = F.cross_entropy(model(x), y).item()
    for how, data in given.items():
        report = vgaudit.scan(model, data, loss="cross-entropy")

        assert report.audit is not None
        assert report.audit.flow.loss is not None
        assert report.audit.flow.loss.value == pytest.approx(expected, rel=1e-6), how


def test_a_loss_may_be_a_function() -> None:
    def squared(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (output - F.one_hot(labels, 10)).square().mean()

    report = vgaudit.scan(models.healthy_relu_mlp(), batch(), loss=squared)

    assert report.audit is not None
    assert report.audit.flow.loss is not None
    assert report.audit.flow.loss.name == "squared"


def test_without_data_the_input_is_inferred() -> None:
    report = vgaudit.scan(models.healthy_relu_mlp())

    assert report.status == "pass"
    assert report.audit is not None
    assert report.audit.data.kind == "synthetic"
    assert report.audit.flow.probe == "jacobian"


def test_adam_bears_what_sgd_does_not() -> None:
    model = models.relu_mlp(10)
    x, _ = batch()
    levels = {}
    for optimizer in ("sgd", "adam"):
        policy = vgaudit.Policy(optimizer=optimizer)
        report = vgaudit.scan(model, x, policy=policy)
        levels[optimizer] = {f.level for f in report.findings if f.code == "VG101"}

    assert {"sgd": {"error"}, "adam": {"warning"}} == levels


def test_the_assertion_names_what_is_wrong() -> None:
    vgaudit.assert_gradient_healthy(models.healthy_relu_mlp(), batch())
    with pytest.raises(AssertionError, match=r"VG101 vanishing-gradient at layers\.0"):
        vgaudit.assert_gradient_healthy(models.deep_sigmoid_mlp(), batch())


def test_too_little_to_judge_is_no_pass() -> None:
    with pytest.raises(NothingMeasured):
        vgaudit.assert_gradient_healthy(nn.Linear(64, 10), batch())


def test_a_wrong_rule_is_told_before_anything_runs() -> None:
    class Counting(nn.Linear):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.runs += 1
            return super().forward(x)

    with pytest.raises(BadConfig, match="unknown rule 'VG999'"):
        vgaudit.scan(
            Counting(64, 10), batch(), policy=vgaudit.Policy(select=("VG999",))
        )
    assert Counting.runs == 0


def test_wrong_shapes_name_the_layer() -> None:
    with pytest.raises(CannotRun, match=r"layers\.0 .* takes 64 input features"):
        vgaudit.scan(models.healthy_relu_mlp(), torch.randn(4, 63))


def test_a_report_becomes_json() -> None:
    report = vgaudit.scan(models.deep_sigmoid_mlp(), batch())

    document = json.loads(REPORTS["json"](report))
    assert document["schema_version"]
    assert document["status"] == "fail"


def test_watching_a_loop_gives_a_verdict_and_changes_nothing() -> None:
    x, y = batch()
    plain, watched = models.deep_sigmoid_mlp(), models.deep_sigmoid_mlp()
    F.cross_entropy(plain(x), y).backward()
    with vgaudit.watch(watched) as probe:
        F.cross_entropy(watched(x), y).backward()

    for left, right in zip(plain.parameters(), watched.parameters(), strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.equal(left.grad, right.grad)
    scanned = vgaudit.scan(models.deep_sigmoid_mlp(), (x, y), loss="cross-entropy")
    flow = probe.flow()
    assert flow.attenuation is not None
    assert scanned.audit is not None
    assert scanned.audit.flow.attenuation is not None
    assert flow.attenuation.value == pytest.approx(
        scanned.audit.flow.attenuation.value, abs=1e-4
    )


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import vgaudit, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
