"""The budget of the worked examples of docs/why.md adds up, and is printed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fixtures import language
from tests.probe.scans import noise
from vgaudit import api
from vgaudit.findings import Report
from vgaudit.flow import GradientFlow
from vgaudit.reports import json, text


def words(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1000, shape, generator=generator)


def zoo(name: str) -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    return getattr(torchvision.models, name)()


EXAMPLES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "lstm": lambda: (language.lstm_language_model(), words(4, 32)),
    "gpt": lambda: (language.small_gpt(), words(2, 32)),
    "resnet50": lambda: (zoo("resnet50"), noise(4, 3, 64, 64)),
    "vit_b_16": lambda: (zoo("vit_b_16"), noise(2, 3, 224, 224)),
}
LARGE = {"resnet50", "vit_b_16"}


def scanned(name: str) -> Report:
    model, x = EXAMPLES[name]()
    return api.scan(model, x)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in EXAMPLES
    ],
)
def test_the_budget_of_a_worked_example_adds_up_and_is_printed(name: str) -> None:
    report = scanned(name)
    kept = json.parse(json.render(report)).audit
    assert kept is not None
    flow: GradientFlow = kept.flow

    assert flow.attenuation is not None
    parts = math.fsum(step.gain.value for step in flow.trunk)
    assert flow.attenuation.value == pytest.approx(parts, abs=1e-6)
    assert parts == pytest.approx(math.fsum(flow.budget().values()), abs=1e-12)
    for branch in flow.branches:
        assert branch.total is not None
        inner = math.fsum(step.gain.value for step in branch.steps)
        assert branch.total.value == pytest.approx(inner, abs=1e-6), branch.name
    for merge in flow.merges:
        apart = math.fsum(10 ** (2 * arrival.norm) for arrival in merge.arrivals)
        whole = 10 ** (2 * merge.total)
        assert whole == pytest.approx(apart * (1 + merge.cross), rel=1e-6), merge.name
    assert bool(flow.branches) == (name != "lstm")
    said = text.render(report)
    assert "where it went" in said or "  budget  " in said
