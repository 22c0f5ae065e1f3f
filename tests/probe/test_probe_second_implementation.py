"""The probe against plain autograd on real models, in float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.probe import oracle
from tests.probe.scans import decades, parameters, scan
from tests.probe.zoo import ZOO
from vgaudit.flow import ActivationFlow

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
FEWEST = {"functional": 0, "lstm": 3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ZOO)
def test_the_probe_agrees_with_plain_autograd(name: str, dtype: str) -> None:
    net, args = ZOO[name]()
    flow = scan(net, *args, dtype=dtype)
    twin, _ = ZOO[name]()
    seen = oracle.measure(twin, args, getattr(torch, dtype))
    close = TOLERANCE[dtype]

    rows = {(row.path, row.call): row for row in flow.layers if row.parameters}
    for key, expected in seen.at.items():
        row = rows.get(key)
        if row is None:  # a shared module owns its parameters on its first call
            row = next(r for r in flow.layers if (r.path, r.call) == key)
        assert row.attenuation is not None, key
        assert row.attenuation.value == pytest.approx(
            decades(expected, seen.reference), abs=close
        ), key
    found = parameters(flow)
    assert set(found) == set(dict(twin.named_parameters()))
    for path, figures in found.items():
        assert figures.connected == (path in seen.parameters), path
        assert figures.grad_norm == pytest.approx(
            seen.parameters.get(path, 0.0), rel=close, abs=1e-3 * close
        ), path
    assert len(seen.at) >= FEWEST.get(name, 8)


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"functional", "lstm"}))
def test_activation_statistics_agree_with_numpy(name: str) -> None:
    net, args = ZOO[name]()
    flow = scan(net, *args, dtype="float64")
    twin, _ = ZOO[name]()
    seen = oracle.measure(twin, args, torch.float64)
    modules = dict(twin.named_modules())

    rows = {
        (row.path, row.call): row.activation
        for row in flow.layers
        if row.activation is not None
    }
    assert set(seen.inputs) <= set(rows)
    for key, z in seen.inputs.items():
        stats = rows[key]
        assert stats is not None
        _check_moments(stats, z, seen.outputs[key])
        _check_slopes(stats, z, oracle.slope(modules[key[0]], z))


def _check_moments(stats: ActivationFlow, z: np.ndarray, out: np.ndarray) -> None:
    assert stats.elements == z.size
    for moments, values in ((stats.input, z), (stats.output, out)):
        assert moments.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
        assert moments.std == pytest.approx(values.std(), rel=1e-9, abs=1e-12)
        assert (moments.min, moments.max) == (values.min(), values.max())


def _check_slopes(stats: ActivationFlow, z: np.ndarray, slope: np.ndarray) -> None:
    assert stats.slope_mean_square == pytest.approx((slope**2).mean(), rel=1e-6)
    assert stats.saturated == pytest.approx(
        (np.abs(slope) < 0.05 * stats.slope_max).mean()
    )
    axis = 1 if z.ndim == 4 and stats.units == z.shape[1] else z.ndim - 1
    others = tuple(dim for dim in range(z.ndim) if dim != axis)
    assert stats.units == z.shape[axis]
    assert stats.dead_units == int((np.abs(slope).max(axis=others) == 0).sum())
