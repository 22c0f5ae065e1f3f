"""What can be asked of ``ar`` and what ``adact`` counts, against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig
from vgaudit.nn import AutoRotation, PiecewiseLinear
from vgaudit.treatments import Treated, treat
from vgaudit.treatments.proof import summarise

X = torch.rand(512, 6, generator=torch.Generator().manual_seed(0))


def net(*, units: int = 8) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, units), nn.Sigmoid(), nn.Linear(units, 2))


def treated(model: nn.Module, x: Tensor = X, **options: Any) -> Treated:
    options = {"to": "ar", "centre": False, "refit": False, **options}
    return treat(model, [Batch(args=(x,), size=len(x))], ConvertOptions(**options))


def rotated(model: nn.Module) -> AutoRotation:
    (layer,) = [m for m in model.modules() if isinstance(m, AutoRotation)]
    return layer


@pytest.mark.parametrize(
    ("kind", "trained", "count"),
    [
        ("auto-indep", True, 8),
        ("auto-shared", True, 1),
        ("frozen-indep", False, 8),
        ("frozen-shared", False, 1),
    ],
)
def test_types_of_the_limit(kind: str, trained: bool, count: int) -> None:
    layer = rotated(treated(net(), limit_type=kind).model)
    assert ("ar_limit" in dict(layer.named_parameters())) == trained
    assert layer.limit.numel() == count
    assert layer.rotation.limit_type == kind.replace("-", "_")


@pytest.mark.parametrize(("kind", "q"), [("xq-min", 0), ("xq-max", 1)])
def test_published_ar_has_z_of_x_q_equal_to_its_limit(kind: str, q: int) -> None:
    """x_Q = 2·min − max or 2·max − min, from the range of what reaches the layer."""
    model = net(units=256)
    low, high = float(X.min()), float(X.max())
    x_q = (2 * low - high, 2 * high - low)[q]
    f = model[0](torch.full((6,), x_q))
    done = treated(model, denominator=kind, limit_from="value", limit=5.0)
    z = done.model[0](torch.full((6,), x_q))
    deviation = 2.0 * (high - low) / 2 * model[0].weight.norm(dim=1)
    middle = model[0](torch.full((6,), (low + high) / 2)).abs()
    unfloored = f.abs() > 0.1 * (middle + deviation)
    assert int(unfloored.sum()) > 128
    assert torch.allclose(z[unfloored].abs(), torch.tensor(5.0), rtol=1e-4)


def test_interval_bounds_every_input_seen_and_says_so() -> None:
    done = treated(net(), denominator="interval", limit_from="value", limit=3.0)
    assert float(done.model[0](X).detach().abs().max()) <= 3.0 * (1 + 1e-5)
    assert done.edits[0].exceeding == 0.0


@pytest.mark.parametrize("source", ["normal", "uniform"])
def test_drawn_limits_have_their_distribution_and_repeat(source: str) -> None:
    options = {"limit_from": source, "fold": False}
    limit = rotated(treated(net(units=4096), **options).model).limit
    again = rotated(treated(net(units=4096), **options).model).limit
    assert torch.equal(limit, again)
    assert float(limit.detach().mean()) == pytest.approx(5.0, abs=0.1)
    wanted = 1.0 if source == "normal" else (6.0**2 / 12) ** 0.5
    assert float(limit.detach().std()) == pytest.approx(wanted, abs=0.06)


def test_a_shared_limit_is_calibrated_for_the_layer() -> None:
    z = treated(net(), limit_type="auto-shared", limit=2.5).model[0](X).abs()
    found = float(z.flatten().kthvalue(round(0.99 * z.numel())).values)
    assert found == pytest.approx(2.5, rel=1e-3)


def test_the_share_above_the_limit_is_counted_value_by_value() -> None:
    """The bound of the paper fails on data: |z| > L, counted on the layer's output."""
    done = treated(net(), denominator="xq-max", limit_from="value", limit=5.0)
    layer = rotated(done.model)
    share = float((layer(X).abs() > layer.limit * (1 + 1e-6)).double().mean())
    assert done.edits[0].exceeding == pytest.approx(share, abs=1e-3)
    assert 0.0 < share < 1.0


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.last = nn.Linear(3 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.conv(x)).flatten(1))


def test_the_authors_border_is_theirs_and_is_not_folded() -> None:
    """|z| of a constant map of x_Q is L everywhere, at the border too."""
    x = torch.rand(16, 2, 6, 6)
    model = Padded()
    done = treated(model, x, border="reference", denominator="xq-max", limit=2.0)
    assert "not folded" in done.edits[0].change
    assert torch.equal(done.model.conv.weight, model.conv.weight)
    x_q = 2 * float(x.max()) - float(x.min())
    constant = torch.full((1, 2, 6, 6), x_q)
    f, z = model.conv(constant).abs(), done.model.conv(constant).abs()
    assert torch.allclose(z[f > 0.5], torch.tensor(2.0), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"border": "reference"}, "--border reference with --denominator moments"),
        ({"preserve": True, "limit_type": "auto-shared"}, "keeps no function"),
        ({"preserve": True, "limit_from": "value"}, "takes L = D"),
        ({"limit": -1.0}, "must be positive"),
    ],
)
def test_what_cannot_be_had_together_is_told(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadConfig, match=words):
        treated(net(), **options)


@pytest.mark.parametrize("kind", ["auto-indep", "frozen-indep"])
def test_gates_keep_limits_of_their_own(kind: str) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.last = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.read(x)[0][:, -1])

    x = torch.randn(8, 4, 6)
    layer = rotated(treated(Reader(), x, limit_type=kind, fold=False).model)
    assert layer.limit.unique().tolist() == [2.0, 4.0]
    with pytest.raises(Exception, match="which need 4 and 2"):
        treated(Reader(), x, limit_type="auto-shared")


def test_dead_hinges_are_those_without_a_gradient() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    done = treat(
        model, [Batch(args=(X,), size=len(X))], ConvertOptions(to="adact", hinges=17)
    )
    (line,) = [m for m in done.model.modules() if isinstance(m, PiecewiseLinear)]
    done.model(X).square().sum().backward()
    without = int((line.values.grad == 0).sum())  # type: ignore[union-attr]
    (edit,) = done.edits
    assert (edit.hinges, edit.dead_hinges) == (4 * 17, without)
    assert without > 0
    assert f"{without} of 68 hinges dead" in edit.change


def test_the_report_adds_them_up() -> None:
    from vgaudit.reports.comparison import render_conversion

    options = ConvertOptions(to="ar")
    done = treat(net(), [Batch(args=(X,), size=len(X))], options)
    text = render_conversion(
        summarise(options, done, before=None, after=None), None, form="text"
    )
    share = done.edits[0].exceeding
    assert share is not None
    assert "ar does not bound |z| by L" in text
    adapted = ConvertOptions(to="adact")
    done = treat(net(), [Batch(args=(X,), size=len(X))], adapted)
    text = render_conversion(
        summarise(adapted, done, before=None, after=None), None, form="text"
    )
    dead = done.edits[0].dead_hinges
    assert f"hinges: {dead} of 72 are dead on the data" in text
