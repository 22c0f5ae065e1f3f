"""The classic solver takes no gradients; its record has those of scans."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.courses import CLASSES, FEATURES, options, samples, trained
from vgaudit.training.runner import FROM_SCANS


def test_every_epoch_has_the_gradients_of_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Sigmoid(), nn.Linear(8, CLASSES))
    asked = options("adact", solver="classic", epochs=3, valid_split=0.0)
    done = trained(model, asked)
    found = done.retraining.run
    x, y = samples()
    F.cross_entropy(done.model(x), y).backward()

    assert [0, 1, 2, 3] == [epoch.number for epoch in found.epochs if epoch.layers]
    assert found.wander is not None
    assert FROM_SCANS in found.notes
    for layer in found.epochs[-1].layers:
        weight = done.model.get_submodule(layer.layer).weight
        wanted = weight.grad.square().mean().sqrt().log10().item()
        # A scan takes some of the samples.
        assert math.log10(layer.rms) == pytest.approx(wanted, abs=0.3)
