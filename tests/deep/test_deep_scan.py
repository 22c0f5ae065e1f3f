"""The deep scan as a whole: the forward signal, what it leaves alone, what it costs."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vgaudit
from tests.deep.nets import batch, deep, he, mlp, normal, scanned
from vgaudit.errors import BadConfig
from vgaudit.job import ProbeOptions
from vgaudit.judge import judge
from vgaudit.probe import probe


def test_the_forward_signal_against_numpy() -> None:
    model, x = mlp(3, 12, nn.Tanh), normal(9, 12)
    points = deep(model, batch(x)).stream
    values = x
    expected = []
    with torch.no_grad():
        for layer in model:
            values = layer(values)
            expected.append(values.double().numpy())

    assert [point.layer for point in points] == [str(i) for i in range(7)]
    for point, out in zip(points, expected, strict=True):
        sigma = np.linalg.svd(out, compute_uv=False)
        norm = np.linalg.norm(out)
        assert point.size == pytest.approx(np.sqrt(np.square(out).mean()), rel=1e-5)
        apart = np.linalg.norm(out - out.mean(0)) / norm
        assert point.variation == pytest.approx(apart, rel=1e-5)
        rank = np.square(np.square(sigma).sum()) / (sigma**4).sum()
        assert point.rank == pytest.approx(rank, rel=1e-5)
        assert point.tokens is None


def test_attention_without_skips_collapses_to_rank_one() -> None:
    class Mix(nn.Module):
        """Even attention and nothing else, as in the theorem of Dong et al."""

        def __init__(self, skip: float) -> None:
            super().__init__()
            self.value, self.skip = nn.Linear(24, 24, bias=False), skip
            nn.init.orthogonal_(self.value.weight)

        def forward(self, x: Tensor) -> Tensor:
            scores = (x @ x.transpose(1, 2) / 24).softmax(-1)
            return self.skip * x + scores @ self.value(x)

    torch.manual_seed(0)
    x = normal(4, 10, 24)
    collapsed = deep(nn.Sequential(*[Mix(0.0) for _ in range(6)]), batch(x)).stream
    kept = deep(nn.Sequential(*[Mix(1.0) for _ in range(6)]), batch(x)).stream

    assert collapsed[-1].tokens is not None
    assert collapsed[-1].tokens < 1e-3
    assert collapsed[-1].rank == pytest.approx(1, abs=1e-3)
    assert kept[-1].tokens is not None
    assert kept[-1].tokens > 0.3


def test_forward_collapse_is_told_apart_from_backward_decay() -> None:
    x = normal(16, 64)
    # Large shared biases: all outputs alike, and the slopes of ReLU all 1.
    model = he(mlp(8, 64, nn.ReLU))
    with torch.no_grad():
        for layer in model[4:]:
            if isinstance(layer, nn.Linear):
                layer.bias.fill_(1e6)
    report = vgaudit.scan(model, x, probe_options=ProbeOptions(deep=True))
    found = [f for f in report.findings if f.code == "VG606"]

    assert not [f for f in report.findings if f.code == "VG101"]
    assert len(found) == 1
    assert "travels well" in found[0].evidence[0]

    lost = vgaudit.scan(
        mlp(10, 64, nn.Sigmoid), x, probe_options=ProbeOptions(deep=True)
    )
    found = [f for f in lost.findings if f.code == "VG606"]
    assert "lost as well" in found[0].evidence[0]


def test_the_model_stays_bit_equal() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(8 * 36, 5),
    )  # fmt: skip
    before, state = copy.deepcopy(model), torch.get_rng_state()
    x = normal(4, 3, 8, 8)
    kept = x.clone()
    deep(model, batch(x))

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert x.grad is None
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in model.modules()] == [
        m.training for m in before.modules()
    ]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_deep_scan_only_adds() -> None:
    model, x = mlp(4, 16, nn.Tanh), normal(8, 16)
    plain = probe(model, [batch(x)], options=ProbeOptions())
    added = scanned(model, batch(x))

    assert plain.deep is None
    assert added.attenuation == plain.attenuation
    assert added.layers == plain.layers
    assert added.trunk == plain.trunk


def test_the_same_seed_gives_the_same_figures() -> None:
    model, x = mlp(3, 300, nn.GELU), normal(8, 300)
    first, second = (deep(model, batch(x)) for _ in range(2))

    assert first.theory == second.theory
    assert first.jacobians == second.jacobians
    assert first.precision == second.precision
    assert [p.part for p in first.prices] == [p.part for p in second.prices]
    assert all(p.seconds > 0 and p.passes > 0 for p in first.prices)


def test_a_part_that_fails_is_named_and_the_others_go_on() -> None:
    class Once(torch.autograd.Function):
        """An operation whose backward pass works once only."""

        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            ctx.spent = False  # type: ignore[attr-defined]
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            if ctx.spent:  # type: ignore[attr-defined]
                raise RuntimeError("spent")
            ctx.spent = True  # type: ignore[attr-defined]
            return gradient * 2

    class Net(nn.Module):
        """Two layers with it between them."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(Once.apply(self.one(x)))

    flow = probe(Net(), [batch(normal(4, 8))], options=ProbeOptions(deep=True))
    assert flow.deep is not None

    assert [(x.path, x.reason) for x in flow.deep.not_measured] == [
        ("jacobian", "spent")
    ]
    assert flow.deep.precision


def test_deep_and_static_exclude_each_other_on_the_command_line() -> None:
    from vgaudit.cli import jobs

    with pytest.raises(BadConfig, match="exclude"):
        jobs.scan_job({"model": "x", "deep": True, "static": True})


def test_healthy_small_nets_are_silent() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True),
        3,
        enable_nested_tensor=False,
    )
    conv = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for model, shape in ((encoder, (4, 9, 32)), (conv, (4, 3, 16, 16))):
        report = vgaudit.scan(
            model, normal(*shape), probe_options=ProbeOptions(deep=True)
        )
        assert report.findings == (), report.findings
        assert judge(report.audit).status == "pass"  # type: ignore[arg-type]


def test_an_ordinary_scan_loads_none_of_it() -> None:
    code = (
        "import sys, torch, vgaudit\n"
        "vgaudit.scan(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), "
        "torch.nn.Linear(3, 2)), torch.randn(4, 3))\n"
        "print([name for name in sys.modules if name.startswith('vgaudit.probe.deep')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()
