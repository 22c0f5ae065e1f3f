"""Which steps are measured, what is kept of them, and scales of the loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vgaudit
from fixtures import models
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.integrations.scalars import judged, scalars
from vgaudit.integrations.steps import Plan, Steps, UnhealthyGradient, kind_of


def step(model: nn.Module, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 64, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    (scale * F.cross_entropy(model(x), y)).backward()
    model.zero_grad()


def run(steps: Steps, model: nn.Module, count: int) -> Steps:
    for number in range(count):
        steps.open(model, number)
        step(model)
        steps.close(number)
        steps.check()
    steps.finish()
    return steps


class Scale:
    """A scaler of a fixed scale."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def get_scale(self) -> float:
        return self.factor


def test_every_nth_step_is_measured_and_the_last_verdict_written(tmp_path) -> None:
    path = tmp_path / "last.json"
    steps = run(Steps(Plan(every=3, report=path)), models.deep_sigmoid_mlp(), 8)

    assert [0, 3, 6] == [point.step for point in steps.history]
    assert {"fail"} == {point.status for point in steps.history}
    written = json.loads(path.read_text())
    assert "fail" == written["status"]
    assert steps.history[-1].figures["vgaudit/attenuation"] == pytest.approx(
        written["summary"]["attenuation_decades"]["value"]
    )


def test_no_hook_stays() -> None:
    model = models.deep_sigmoid_mlp()
    run(Steps(Plan(every=1)), model, 2)

    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in model.parameters())


def test_a_finding_of_the_level_stops_the_training(tmp_path) -> None:
    path = tmp_path / "last.txt"
    steps = Steps(Plan(every=1, fail_on="error", report=path))
    with pytest.raises(UnhealthyGradient, match=r"at step 0\nVG101 ") as stop:
        run(steps, models.deep_sigmoid_mlp(), 2)

    assert "fail" == stop.value.report.status
    assert "VG101" in path.read_text()


def test_a_healthy_net_goes_on() -> None:
    plan = Plan(every=1, fail_on="error")
    steps = run(Steps(plan), models.healthy_relu_mlp(), 2)

    assert ["pass", "pass"] == [point.status for point in steps.history]


def test_what_cannot_be_measured_is_tried_again_and_said() -> None:
    class Aside(nn.Module):
        """Is called by nobody: its layers are."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 10)

    model = Aside()
    steps = Steps(Plan(every=100))
    for number in range(2):
        steps.open(model, number)
        F.cross_entropy(
            model.second(model.first(torch.randn(4, 64))), torch.arange(4)
        ).backward()
        assert {} == steps.close(number)
    with pytest.warns(UserWarning, match="no backward pass was seen"):
        steps.finish()

    strict = Steps(Plan(fail_on="error"))
    strict.open(model, 0)
    strict.close(0)
    with pytest.raises(NothingMeasured):
        strict.finish()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"fail_on": "errors"}, "fail_on is 'errors'"),
        ({"report": Path("last.pdf")}, "no format for a report called last.pdf"),
        ({"policy": vgaudit.Policy(select=("VG999",))}, "unknown rule 'VG999'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(wrong, message) -> None:
    with pytest.raises(BadConfig, match=message):
        Plan(**wrong)


def test_an_adaptive_optimizer_is_told_from_others() -> None:
    weights = [nn.Parameter(torch.zeros(2))]

    assert "adam" == kind_of(torch.optim.AdamW(weights))
    assert "adam" == kind_of(torch.optim.RMSprop(weights))
    assert "sgd" == kind_of(torch.optim.SGD(weights))
    assert "sgd" == kind_of(None)


# ---------------------------------------------------------------- loss scales


def figures(scale: float, told: bool) -> vgaudit.GradientFlow:
    model = models.deep_sigmoid_mlp()
    scaler = Scale(scale) if told else None
    with vgaudit.watch(model, scaler=scaler) as probe:
        step(model, scale)
    return probe.flow()


def test_gradients_are_stated_without_the_scale_of_the_loss() -> None:
    plain, scaled, untold = figures(1.0, True), figures(1024.0, True), figures(8, False)

    for one, two, three in zip(
        plain.parameters, scaled.parameters, untold.parameters, strict=True
    ):
        assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-5)
        assert 8 * one.grad_norm == pytest.approx(three.grad_norm, rel=1e-5)
    assert scalars(plain) == pytest.approx(scalars(scaled), rel=1e-5)
    assert scalars(plain) == pytest.approx(scalars(untold), rel=1e-5)
    assert any("scale of the loss, 1024" in note for note in scaled.notes)


def test_passes_that_overflow_are_left_out_as_the_scaler_does() -> None:
    model, scale = models.healthy_relu_mlp(), Scale(2.0**100)
    with vgaudit.watch(model, scaler=scale) as probe:
        step(model, float("inf"))
        with pytest.raises(NothingMeasured, match=r"loss scale of 1\.26"):
            probe.flow()
        scale.factor = 4.0
        step(model, 4.0)
    flow = probe.flow()

    assert (1, 1) == (flow.batches, flow.skipped)
    assert "pass" == probe.report().status


def test_without_a_scale_to_blame_the_overflow_counts() -> None:
    model = models.healthy_relu_mlp()
    with vgaudit.watch(model, scaler=Scale(1.0)) as probe:
        step(model, float("inf"))

    assert "VG107" in {finding.code for finding in probe.report().findings}


def test_the_scaler_of_torch_is_one() -> None:
    model = models.healthy_relu_mlp()
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    x, y = torch.randn(8, 64), torch.randint(0, 10, (8,))
    with vgaudit.watch(model, scaler=scaler) as probe:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
    sums = {
        name: float(parameter.grad.double().norm()) / 256.0
        for name, parameter in model.named_parameters()
    }

    for parameter in probe.flow().parameters:
        assert sums[parameter.name] == pytest.approx(parameter.grad_norm, rel=1e-5)


# ------------------------------------------------------- a loss in the output


class WithLoss(nn.Module):
    """Returns its own loss beside its output, as models of transformers do."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.net, self.both = models.deep_sigmoid_mlp(), both

    def forward(self, x, y):
        out = self.net(x)
        loss = F.cross_entropy(out, y)
        return {"loss": loss, "logits": out} if self.both else out


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_loss_among_the_outputs_changes_no_verdict(scale) -> None:
    x, y = torch.randn(16, 64), torch.randint(0, 10, (16,))
    seen = []
    for both in (True, False):
        torch.manual_seed(0)
        model = WithLoss(both)
        with vgaudit.watch(model) as probe:
            out = model(x, y)
            loss = out["loss"] if both else F.cross_entropy(out, y)
            (scale * loss).backward()
        seen.append(judged(probe.report()))

    assert seen[0] == pytest.approx(seen[1], rel=1e-6)


def test_importing_vgaudit_imports_no_trainer() -> None:
    code = (
        "import sys, vgaudit, vgaudit.api, vgaudit.integrations.steps\n"
        "import vgaudit.integrations.tensorboard\n"
        "names = {'lightning', 'pytorch_lightning', 'transformers', 'tensorboard'}\n"
        "sys.exit(', '.join(names & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=-1)

    assert (0, b"") == (done.returncode, done.stderr)
