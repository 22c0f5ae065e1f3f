"""Centring, calibration and the measured share of |z| > L."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vgaudit.errors import BadConfig, CannotRewrite, NothingMeasured
from vgaudit.nn import (
    Denominator,
    Limit,
    auto_rotate,
    calibrate_,
    center_,
    exceedance,
    fold_,
)

LAYERS = [
    pytest.param(lambda: nn.Linear(6, 4), (500, 6), id="linear"),
    pytest.param(lambda: nn.Linear(6, 4), (50, 10, 6), id="sequence"),
    pytest.param(lambda: nn.Conv2d(3, 4, 3, padding=1), (40, 3, 6, 6), id="conv"),
    pytest.param(lambda: nn.ConvTranspose1d(3, 4, 3, 2), (60, 3, 7), id="transposed"),
]


def units_of(layer: nn.Module, z: torch.Tensor) -> np.ndarray:
    """Returns ``[samples, units]``."""
    z = z if isinstance(layer, nn.Linear) else z.movedim(1, -1)
    return z.detach().reshape(-1, 4).numpy()


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_centring_makes_every_mean_zero(make, shape) -> None:
    layer = auto_rotate(make(), inputs=(0, 1))
    x = torch.rand(shape)
    center_(layer, x)

    assert np.abs(units_of(layer, layer(x)).mean(0)).max() < 1e-12


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_calibration_puts_the_quantile_of_every_unit_on_target(make, shape) -> None:
    layer = calibrate_(auto_rotate(make(), inputs=(0, 1)), x := torch.rand(shape))

    z = np.abs(units_of(layer, layer(x)))
    found = np.quantile(z, 0.99, axis=0, method="inverted_cdf")
    assert np.abs(found - 4).max() < 1e-12


def test_calibration_of_a_layer_as_a_whole() -> None:
    x = torch.rand(1000, 6)
    for kind in ("auto_indep", "frozen_shared"):
        layer = auto_rotate(nn.Linear(6, 4), limit=Limit(1.0, kind), inputs=(0, 1))
        calibrate_(layer, x, target=2.5, quantile=0.9, per="layer")

        z = layer(x).detach().abs().numpy()
        found = np.quantile(z, 0.9, method="inverted_cdf")
        assert pytest.approx(2.5, rel=1e-12) == found
        assert 1 == len(set(layer.limit.flatten().tolist()))


def test_several_batches_are_one() -> None:
    x = torch.rand(300, 6)
    base = nn.Linear(6, 4).state_dict()
    limits = []
    for batches in (x, [x[:100], x[100:120], x[120:]], iter([x])):
        layer = nn.Linear(6, 4)
        layer.load_state_dict(base)
        auto_rotate(layer)
        center_(layer, batches if not hasattr(batches, "__next__") else x)
        limits.append(calibrate_(layer, batches).limit.detach())

    assert torch.allclose(limits[0], limits[1], rtol=1e-12)
    assert torch.allclose(limits[0], limits[2], rtol=1e-12)


def test_centred_calibrated_folded_sigmoid_passes_signal_to_depth() -> None:
    """Untreated, 20 sigmoid layers forget their input; treated, they do not."""
    torch.manual_seed(0)
    x = torch.rand(256, 32)
    for treated, low, high in ((False, 0.0, 1e-9), (True, 0.05, 1.0)):
        h = x
        for _ in range(20):
            layer = nn.Linear(32, 32)
            if treated:
                auto_rotate(layer, inputs=(0, 1))
                fold_(calibrate_(center_(layer, h), h))
            h = layer(h).sigmoid().detach()

        assert low <= h.std(0).mean().item() <= high


def test_unit_that_does_not_vary_keeps_its_l() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias[0] = 0
    auto_rotate(layer, limit=3.0)
    calibrate_(layer, torch.rand(100, 3))

    assert pytest.approx(3.0, rel=1e-12) == layer.limit[0].item()
    assert layer.limit[1].item() != 3.0


def test_exceedance_counts() -> None:
    layer = auto_rotate(nn.Linear(6, 4), limit=0.5)
    x = torch.randn(200, 6) * 3
    over = layer(x).abs() > 0.5
    found = exceedance(layer, [x[:50], x[50:]])

    assert over.double().mean().item() == pytest.approx(found.share)
    assert over.double().mean(0).max().item() == pytest.approx(found.worst)
    assert (layer.rho().min().item(), layer.rho().max().item()) == (
        found.rho_min,
        found.rho_max,
    )
    assert 200 == found.samples


def test_what_cannot_be_calibrated_is_refused() -> None:
    lstm = auto_rotate(nn.LSTM(2, 3))
    bordered = auto_rotate(
        nn.Conv2d(2, 3, 3, padding=1),
        denominator=Denominator("xq-max", border="reference"),
    )
    for layer in (lstm, bordered):
        for act in (center_, calibrate_, exceedance):
            with pytest.raises(CannotRewrite, match="cannot be seen alone"):
                act(layer, torch.rand(2, 2, 4, 4))
    with pytest.raises(CannotRewrite, match="has no bias to centre"):
        center_(auto_rotate(nn.Linear(2, 3, bias=False)), torch.rand(2, 2))


def test_wrong_numbers_and_empty_data_are_refused() -> None:
    layer = auto_rotate(nn.Linear(2, 3))
    shared = auto_rotate(nn.Linear(2, 3), limit=Limit(1.0, "auto_shared"))
    x = torch.rand(4, 2)
    for options in ({"target": 0.0}, {"quantile": 0.0}, {"quantile": 1.5}):
        with pytest.raises(BadConfig, match="calibration per unit"):
            calibrate_(layer, x, **options)
    with pytest.raises(BadConfig, match="L auto_shared"):
        calibrate_(shared, x)
    for act in (center_, calibrate_, exceedance):
        with pytest.raises(NothingMeasured, match="no finite pre-activation"):
            act(layer, [])
        with pytest.raises(NothingMeasured, match="no finite pre-activation"):
            act(layer, torch.full((3, 2), torch.nan))
