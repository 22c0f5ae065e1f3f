"""Static scans: what weights and graph say, without running anything."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from tests.conftest import Cli
from tests.deep.nets import batch, he, mlp, normal, scanned
from vgaudit.flow import StaticFlow
from vgaudit.job import ProbeOptions
from vgaudit.probe import probe


def static(model: nn.Module, x: Tensor) -> StaticFlow:
    found = probe(model, [batch(x)], options=ProbeOptions(static=True)).static
    assert found is not None
    return found


def codes(model: nn.Module, x: Tensor) -> tuple[str, list[str]]:
    report = vgaudit.scan(model, x, probe_options=ProbeOptions(static=True))
    return report.status, [finding.code for finding in report.findings]


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU])
def test_the_prediction_is_that_of_the_measurement(act: type[nn.Module]) -> None:
    model, x = mlp(10, 128, act), normal(16, 128)
    found = static(model, x)
    measured = scanned(model, batch(x)).attenuation

    assert measured is not None
    assert found.predicted == pytest.approx(measured.value, abs=0.35)
    (stretch,) = found.stretches
    assert len(stretch.layers) == 11
    assert stretch.decades == pytest.approx(sum(x.decades for x in stretch.layers))
    assert stretch.decades == pytest.approx(found.predicted, abs=1e-6)


def test_the_gain_is_the_mean_square_row_of_the_weight() -> None:
    model = mlp(4, 32, nn.ReLU)
    (stretch,) = static(model, normal(4, 32)).stretches

    for row in stretch.layers:
        weight = model.get_submodule(row.layer).weight
        assert row.gain == pytest.approx(
            float(weight.detach().double().square().sum(1).mean()), rel=1e-5
        )
    assert [row.activation for row in stretch.layers] == ["linear"] + ["relu"] * 4
    assert stretch.layers[1].critical == pytest.approx(2, rel=1e-3)


def test_verdicts_without_data() -> None:
    x = normal(8, 64)

    assert codes(mlp(10, 64, nn.Sigmoid), x) == ("fail", ["VG401"])
    assert codes(mlp(20, 64, nn.ReLU), x) == ("fail", ["VG402"])
    assert codes(he(mlp(20, 64, nn.ReLU)), x) == ("pass", [])
    assert codes(mlp(3, 64, nn.Tanh), x) == ("pass", [])


def test_a_tanh_stack_at_the_edge_of_chaos_is_quiet() -> None:
    model = mlp(30, 128, nn.Tanh)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, gain=1.1)
            nn.init.zeros_(module.bias)

    assert codes(model, normal(8, 128)) == ("pass", [])


def test_norms_and_skips_end_a_stretch() -> None:
    def normed(*inner: nn.Module) -> nn.Sequential:
        layers = []
        for _ in range(12):
            layers += [nn.Linear(32, 32), *inner, nn.Sigmoid()]
        return nn.Sequential(*layers, nn.Linear(32, 4))

    class Block(nn.Module):
        """A skip around a layer and its activation."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.sigmoid(self.inner(x))

    x = normal(8, 32)
    assert codes(normed(), x)[1] == ["VG401"]
    assert codes(normed(nn.BatchNorm1d(32)), x) == ("pass", [])
    assert codes(nn.Sequential(*[Block() for _ in range(12)]), x) == ("pass", [])


def test_a_model_of_which_nothing_can_be_said_is_inconclusive() -> None:
    class Reader(nn.Module):
        """A recurrent net with a head."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    report = vgaudit.scan(
        Reader(), normal(4, 6, 8), probe_options=ProbeOptions(static=True)
    )

    assert report.status == "inconclusive"
    assert report.exit_code == 4


def test_norms_over_the_batch_divide_by_the_variance_within_a_unit() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(8, 32, 3, padding=1)]
    for _ in range(8):
        layers += [nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
    model = nn.Sequential(*layers)
    x = normal(8, 8, 12, 12)
    measured = probe(model, [batch(x)]).attenuation

    # ReLU's mean is taken out: 1/2 of the slopes over 1/2 − 1/(2π) of the variance.
    assert measured is not None
    assert static(model, x).predicted == pytest.approx(measured.value, abs=0.2)
    assert measured.value > 0.3


def test_weight_norm_is_not_mistaken_for_the_weight() -> None:
    model = nn.Sequential(
        *[nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)) for _ in range(6)]
    )
    found = static(model, normal(4, 16))

    assert found.stretches == ()
    assert found.judged == 0


def test_nothing_runs() -> None:
    class Counting(nn.Module):
        """Fails if it is given real numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            from torch._subclasses.fake_tensor import FakeTensor

            assert isinstance(x, FakeTensor)
            return self.two(torch.relu(self.one(x)))

    assert static(Counting(), normal(4, 8)).judged == 2


def test_a_large_net_is_read_in_about_a_second() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *[layer for _ in range(60) for layer in (nn.Linear(512, 512), nn.ReLU())]
    )
    started = time.process_time()
    found = static(model, normal(32, 512))

    assert len(found.stretches[0].layers) == 60
    assert time.process_time() - started < 5


def test_the_command_line(shell: Cli) -> None:
    spec = "fixtures/models.py:deep_sigmoid_mlp"
    done = shell("scan", spec, "--static", "--allow-code", "--format", "json")
    record = json.loads(done.out)

    assert done.code == 1
    assert [f["code"] for f in record["findings"]] == ["VG401"]
    assert record["audit"]["flow"]["batches"] == 0
    assert record["audit"]["flow"]["static"]["judged"] == 11

    done = shell("scan", spec, "--static", "--allow-code")
    assert "nothing run" in done.out
    assert "by theory" in done.out


def test_the_text_of_a_deep_scan_names_every_subject(shell: Cli) -> None:
    spec = "fixtures/models.py:deep_sigmoid_mlp"
    done = shell("scan", spec, "--deep", "--allow-code", "--batches", "2")

    assert done.code == 1
    for label in (
        "theory",
        "singular values",
        "forward signal",
        "number formats",
        "price",
    ):
        assert f"\n  {label}" in done.out, label
    assert "VG606" in done.out
