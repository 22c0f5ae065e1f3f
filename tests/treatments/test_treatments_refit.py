"""Refitting the next layer, against least squares and on a saturated net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fixtures import models
from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.treatments import Treated, treat
from vgaudit.treatments.plan import plan_layers
from vgaudit.treatments.recorded import record
from vgaudit.treatments.refit import ridge

X = torch.randn(1024, 64, generator=torch.Generator().manual_seed(2))


def test_ridge_finds_a_linear_map_again() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 7, dtype=torch.float64, generator=generator)
    wanted = torch.randn(3, 7, dtype=torch.float64, generator=generator)
    y = x @ wanted.T + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    weight, bias = ridge(x, y)
    assert torch.allclose(weight, wanted, atol=1e-4)
    assert torch.allclose(bias, torch.tensor([1.0, -2.0, 0.5]).double(), atol=1e-4)


def test_ridge_is_least_squares_where_that_is_well_posed() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 5, dtype=torch.float64, generator=generator) + 3.0
    y = torch.randn(300, 2, dtype=torch.float64, generator=generator)
    ones = torch.ones(300, 1, dtype=torch.float64)
    exact = torch.linalg.lstsq(torch.cat((x, ones), 1), y).solution.T
    weight, bias = ridge(x, y)
    assert torch.allclose(weight, exact[:, :5], atol=1e-4)
    assert torch.allclose(bias, exact[:, 5], atol=1e-3)


def test_ridge_survives_a_constant_input() -> None:
    x = torch.ones(50, 4, dtype=torch.float64)
    y = torch.randn(50, 2, dtype=torch.float64)
    weight, bias = ridge(x, y)
    assert torch.isfinite(weight).all()
    assert torch.allclose(x @ weight.T + bias, y.mean(0).expand(50, 2), atol=1e-6)


def converted(model: nn.Module, **options: object) -> Treated:
    return treat(model, [Batch(args=(X,), size=1024)], ConvertOptions(**options))  # type: ignore[arg-type]


def distance(model: nn.Module, other: nn.Module) -> Tensor:
    with torch.no_grad():
        return (model(X) - other(X)).square().mean()


@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_a_saturated_layer_is_scaled_and_the_function_nearly_kept(to: str) -> None:
    """No other head on the same hidden layer is nearer, the old one included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 3))
    with torch.no_grad():
        model[0].weight.mul_(8.0)
    refitted = converted(model, to=to)
    scaled = converted(model, to=to, refit=False)
    (edit,) = refitted.edits
    assert "2 refitted" in edit.change
    assert "refitted" not in scaled.edits[0].change
    ours = distance(model, refitted.model)
    assert ours < distance(model, scaled.model)
    with torch.no_grad():
        hidden, wanted = refitted.model[:2](X), model(X)
        ones = torch.ones(len(X), 1)
        best = torch.linalg.lstsq(torch.cat((hidden, ones), 1), wanted).solution
        least = (torch.cat((hidden, ones), 1) @ best - wanted).square().mean()
    assert ours == pytest.approx(float(least), rel=1e-2)


def test_too_few_samples_are_said() -> None:
    few = [Batch(args=(X[:100],), size=100)]
    done = treat(models.saturated_tanh_mlp(), few, ConvertOptions(to="rescale"))
    assert all("100 samples for 64 inputs" in edit.change for edit in done.edits)


def test_a_stuck_net_is_centred_and_not_refitted() -> None:
    done = converted(models.deep_sigmoid_mlp(), to="rescale")
    assert not any("refitted" in edit.change for edit in done.edits)


def test_the_layer_after_is_refitted_only_where_it_stands_alone() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.a(x))
            return self.b(x) + self.c(x)

    options = ConvertOptions(to="rescale")
    fork, line = Fork(), models.saturated_tanh_mlp()
    batch = Batch(args=(X[:8],), size=8)
    (split,) = plan_layers(record(fork, batch), fork, options).layers
    first = plan_layers(record(line, batch), line, options).layers[0]
    assert (split.following, first.following) == ("", "layers.2")
