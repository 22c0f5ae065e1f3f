"""The verdict does not depend on the scale of the loss, the batch or the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fixtures import batches as inputs
from fixtures import models
from tests.verdicts.judging import verdict
from vgaudit.data.batch import Batch, Loss

HEALTHY = (
    "healthy_relu_mlp",
    "healthy_residual_net",
    "inplace_relu_cnn",
    "functional_activations",
    "tiny_transformer",
)
SICK = (
    "deep_sigmoid_mlp",
    "small_weights_mlp",
    "exploding_mlp",
    "saturated_tanh_mlp",
    "dead_relu_mlp",
)
TEN = (*HEALTHY, *SICK)


def batches(name: str, *, size: int = 16, seed: int = 0, count: int = 4) -> list[Batch]:
    made = []
    for number in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        labels = torch.randint(0, 10, (size,), generator=generator)
        args = inputs.inputs(name, size, seed=1000 * seed + number)
        made.append(Batch(args=args, labels=labels, size=size))
    return made


def cross_entropy(scale: float, reduction: str) -> Loss:
    def loss(output: Any, labels: Tensor) -> Tensor:
        return scale * F.cross_entropy(output, labels, reduction=reduction)

    return Loss("cross-entropy", loss)


def findings(
    name: str, loss: Loss | None, data: list[Batch], seed: int = 0
) -> set[Any]:
    factory: Callable[[], torch.nn.Module] = getattr(models, name)
    report = verdict(factory(), data, loss=loss, seed=seed)
    return {(f.code, f.level, f.layer) for f in report.findings if f.level != "info"}


@pytest.mark.parametrize("name", TEN)
def test_scaling_the_loss_changes_no_finding(name: str) -> None:
    data = batches(name)
    plain = findings(name, cross_entropy(1.0, "mean"), data)

    assert (name in SICK) == any(level == "error" for _, level, _ in plain)
    for scale in (1e-6, 1e6):
        assert plain == findings(name, cross_entropy(scale, "mean"), data)


@pytest.mark.parametrize("name", TEN)
def test_reduction_changes_no_finding(name: str) -> None:
    data = batches(name)

    mean = findings(name, cross_entropy(1.0, "mean"), data)
    assert mean == findings(name, cross_entropy(1.0, "sum"), data)


@pytest.mark.parametrize("name", TEN)
def test_batch_size_changes_no_error(name: str) -> None:
    """From one sample (where no batch normalisation forbids it) to 64."""
    smallest = 2 if name in ("healthy_residual_net", "inplace_relu_cnn") else 1
    loss = cross_entropy(1.0, "mean")
    codes = {
        size: {(c, lv) for c, lv, _ in findings(name, loss, batches(name, size=size))}
        for size in (smallest, 8, 64)
    }

    assert codes[smallest] == codes[8] == codes[64]


@pytest.mark.parametrize("name", TEN)
def test_seed_changes_no_finding(name: str) -> None:
    seen = [
        {(c, lv) for c, lv, _ in findings(name, None, batches(name, seed=seed), seed)}
        for seed in range(5)
    ]

    assert all(codes == seen[0] for codes in seen)


@pytest.mark.parametrize("name", TEN)
def test_both_probes_agree_on_errors(name: str) -> None:
    data = batches(name)
    transport = {c for c, lv, _ in findings(name, None, data) if lv == "error"}
    real = {
        c
        for c, lv, _ in findings(name, cross_entropy(1.0, "mean"), data)
        if lv == "error"
    }

    assert transport == real
