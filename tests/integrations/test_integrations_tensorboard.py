"""Curves for TensorBoard."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import vgaudit
from fixtures import models
from vgaudit.integrations import tensorboard


def measured() -> vgaudit.Report:
    model = models.deep_sigmoid_mlp()
    x, y = torch.randn(16, 64), torch.randint(0, 10, (16,))
    with vgaudit.watch(model) as probe:
        F.cross_entropy(model(x), y).backward()
    return probe.report()


class Curves(dict):
    """Keeps what a writer is given."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self[tag, global_step] = scalar_value


def test_a_report_becomes_its_figures_and_counts() -> None:
    report, curves = measured(), Curves()
    tensorboard.log(curves, report, 7)
    flow = report.audit.flow

    assert flow.attenuation.value == curves["vgaudit/attenuation", 7]
    assert report.count("error") == curves["vgaudit/errors", 7] >= 1
    assert min(s.gain.value for s in flow.trunk) == curves["vgaudit/worst_step", 7]
    assert {7} == {step for _, step in curves}


def test_each_weight_layer_has_its_curve_where_asked() -> None:
    report, plain, full = measured(), Curves(), Curves()
    tensorboard.log(plain, report.audit.flow, 0)
    tensorboard.log(full, report.audit.flow, 0, layers=True)
    expected = {
        (f"vgaudit/layers/{layer.path}", 0): layer.attenuation.value
        for layer in report.audit.flow.layers
        if layer.weighted
    }

    assert len(expected) == 11
    assert {**plain, **expected} == full
    assert ("vgaudit/errors", 0) not in plain


def test_the_real_writer_takes_them(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    report = measured()
    with SummaryWriter(tmp_path) as writer:
        tensorboard.log(writer, report, 3)
    read = EventAccumulator(str(tmp_path)).Reload()
    (point,) = read.Scalars("vgaudit/attenuation")

    assert 3 == point.step
    assert report.audit.flow.attenuation.value == pytest.approx(point.value, rel=1e-6)
