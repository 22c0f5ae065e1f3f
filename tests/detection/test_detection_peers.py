"""The peers' formulas, just inside and just outside each published threshold."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.observe import Gradient, Observer, Output, Snapshot
from benchmarks.detection.peers import (
    autotrainer,
    deepchecker,
    deepdiagnosis,
    sagemaker,
    torchlens,
    torchmortem,
)


def gradient(
    name: str, norm: float = 1.0, *, mean_abs: float = 0.1, zeros: int = 0
) -> Gradient:
    return Gradient(
        name=name, matrix=True, norm=norm, mean_abs=mean_abs, mean=0.01,
        zeros=zeros, numel=100,
    )  # fmt: skip


def output(name: str, kind: str = "Linear", **changes: float) -> Output:
    figures = {
        "mean": 0.1, "gradient": 1.0, "idle": 0.5, "flat": 0.0, "inactive": 0.0,
        "quiet": 0.0, "beyond": 0.0,
    }  # fmt: skip
    return Output(
        name=name, kind=kind, weighted=kind == "Linear", **{**figures, **changes}
    )


def run(
    gradients: tuple[Gradient, ...] = (gradient("a.weight"), gradient("b.weight")),
    outputs: tuple[Output, ...] = (output("a"), output("b")),
    accuracy: float = 0.4,
    loss: float = 1.0,
) -> list[Snapshot]:
    return [
        Snapshot(
            step=25 * i,
            loss=loss,
            accuracy=accuracy,
            gradients=gradients,
            outputs=outputs,
        )
        for i in range(4)
    ]


def test_a_plain_run_is_quiet_everywhere() -> None:
    for peer in (autotrainer, sagemaker, deepdiagnosis, torchlens, torchmortem):
        flags = peer(run())
        assert (flags.vanishing, flags.exploding, flags.dead) == ((), (), ())
    assert deepchecker(run()).vanishing is None


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(9e-5, 1.0, ("a",)), (1.1e-4, 1.0, ()), (9e-5, 0.08, ())],
)
def test_autotrainer_needs_a_small_ratio_and_a_small_norm(
    first: float, last: float, expected: tuple[str, ...]
) -> None:
    pair = (gradient("a.weight", first), gradient("b.weight", last))

    assert autotrainer(run(pair)).vanishing == expected
    assert autotrainer(run(pair, accuracy=0.9)[:3]).vanishing == ()


def test_autotrainer_explodes_above_seventy_and_dies_at_seventy_percent() -> None:
    steep = (gradient("a.weight", 71.0), gradient("b.weight", 1.0))
    zeros = (gradient("a.weight", zeros=70), gradient("b.weight", zeros=70))

    assert autotrainer(run(steep)).exploding == ("a",)
    assert autotrainer(run(zeros)).dead == ("model",)


def test_sagemaker_and_deepdiagnosis_compare_with_an_absolute_number() -> None:
    below = (gradient("a.weight", mean_abs=0.9e-7), gradient("b.weight"))
    above = (gradient("a.weight", mean_abs=1.1e-7), gradient("b.weight"))

    for peer in (sagemaker, deepdiagnosis):
        assert peer(run(below)).vanishing == ("a",)
        assert peer(run(above)).vanishing == ()
        assert peer(run(loss=math.inf)).exploding == ("model",)


def test_dead_shares() -> None:
    relu = output("r", "ReLU", inactive=0.51, idle=0.7, quiet=0.51)
    less = output("r", "ReLU", inactive=0.5, idle=0.69, quiet=0.5)

    for peer in (sagemaker, deepdiagnosis, deepchecker):
        assert peer(run(outputs=(relu,))).dead == ("r",)
        assert peer(run(outputs=(less,))).dead == ()


def test_torchlens_audits_norms_at_outputs() -> None:
    seen = (
        output("tiny", gradient=0.9e-7),
        output("none", gradient=0.0),
        output("huge", gradient=1.1e4),
    )
    flags = torchlens(run(outputs=seen))

    assert (flags.vanishing, flags.dead, flags.exploding) == (
        ("tiny",),
        ("none",),
        ("huge",),
    )


def test_torchmortem_compares_the_last_layer_with_the_first() -> None:
    starved = (output("a", gradient=0.0099), output("b", gradient=1.0))
    enough = (output("a", gradient=0.0101), output("b", gradient=1.0))

    assert torchmortem(run(outputs=starved)).vanishing == ("a", "b")
    assert torchmortem(run(outputs=enough)).vanishing == ()
    assert torchmortem(run(outputs=(output("a", gradient=1001.0),))).exploding == ("a",)
    assert torchmortem(run(outputs=(output("a", flat=0.51),))).dead == ("a",)


def test_the_observer_sees_what_autograd_gives() -> None:
    import torch
    from torch import nn

    from benchmarks.detection.tasks import loss_of, task

    data = task("blobs")
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    observer = Observer()
    observer.look(model, data, 0)
    x, y = data.x[:128], data.y[:128]
    expected = torch.autograd.grad(loss_of(model(x), y), list(model.parameters()))
    norms = [float(g.norm()) for g in expected]

    assert [g.norm for g in observer.snapshots[0].gradients] == pytest.approx(
        norms, rel=1e-5
    )
    idle = float((model[:2](x) <= 0).double().mean())
    assert observer.snapshots[0].outputs[1].idle == pytest.approx(idle)
