"""On a GPU the figures and the verdict are those of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fixtures import batches as inputs
from fixtures import models
from tests.verdicts.judging import audit_of
from vgaudit.data.batch import Batch
from vgaudit.flow import GradientFlow
from vgaudit.job import ProbeOptions
from vgaudit.judge import judge
from vgaudit.probe import probe

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


def flow_on(device: str, name: str) -> GradientFlow:
    data = [
        Batch(args=inputs.inputs(name, 16, seed=number), size=16) for number in range(4)
    ]
    model = getattr(models, name)()
    return probe(model, data, options=ProbeOptions(device=device))


def findings(flow: GradientFlow) -> set[Any]:
    return {(f.code, f.level, f.layer) for f in judge(audit_of(flow)).findings}


@pytest.mark.parametrize("name", inputs.NAMES)
def test_the_device_changes_neither_figures_nor_findings(name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    host, device = flow_on("cpu", name), flow_on("cuda", name)

    assert findings(host) == findings(device)
    if host.attenuation is None:
        assert device.attenuation is None
    else:
        assert device.attenuation is not None
        assert device.attenuation.value == pytest.approx(
            host.attenuation.value, abs=0.01
        )
    mine = {p.name: p.grad_norm for p in host.parameters}
    theirs = {p.name: p.grad_norm for p in device.parameters}
    assert mine.keys() == theirs.keys()
    for parameter, size in mine.items():
        assert theirs[parameter] == pytest.approx(size, rel=0.02, abs=1e-30)
    before = {x.path: x.activation for x in host.layers if x.activation}
    after = {x.path: x.activation for x in device.layers if x.activation}
    assert before.keys() == after.keys()
    for path, seen in before.items():
        assert after[path].dead_units == seen.dead_units
        assert after[path].saturated == pytest.approx(seen.saturated, abs=0.01)
        assert after[path].output.std == pytest.approx(seen.output.std, rel=1e-3)
