"""Batches after the first follow its order of calls: the figures must not change."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.probe.scans import batch, noise, scan_all
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.probe import step as steps
from vgaudit.probe.capture import Recorder
from vgaudit.probe.follow import Follower
from vgaudit.probe.forward import Setting
from vgaudit.probe.state import Twin
from vgaudit.probe.step import Measured, measure


class Many(nn.Module):
    """Activations in every form in which a model may call them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.relu, self.inplace = nn.ReLU(), nn.ReLU(inplace=True)
        self.slopes = nn.PReLU(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(x)) + F.gelu(self.b(x), approximate="tanh")
        x = F.dropout(F.hardtanh(x, 0.0, 6.0), 0.5)
        x = F.leaky_relu_(self.c(x)) + torch.tanh(input=self.b(x))
        with torch.no_grad():
            scale = torch.sigmoid(x)
        gate = torch.sigmoid(self.a.weight)
        return self.slopes(self.inplace(self.c(x * scale + 1.0))) @ gate


class Convolutions(nn.Module):
    """A small net of images with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.SiLU(), nn.Dropout2d()),
            *(nn.Conv2d(5, 4, 3, bias=False), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


class Attention(nn.Module):
    """One layer of a transformer with dropout, which stays off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Sometimes(nn.Module):
    """An activation that no gradient passes, called for positive batches alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = torch.sigmoid(x).mean() if x.mean() > 0 else x.mean()
        return self.b(torch.tanh(self.a(x))) + shift


class Swapping(nn.Module):
    """The same graph whatever comes, with its branches run in another order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            one = torch.tanh(self.a(x))
            two = torch.tanh(5 * self.b(x))
        else:
            two = torch.tanh(5 * self.b(x))
            one = torch.tanh(self.a(x))
        return one + two


class Segments(nn.Module):
    """Its layers run again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.a, self.a(x), use_reentrant=False)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Returns which kind of watcher each finished pass had."""
    kinds: list[type] = []
    attempt = steps._attempt

    def noted(setting, given, turn, recorder):  # type: ignore[no-untyped-def]
        done = attempt(setting, given, turn, recorder)
        if done is not None:
            kinds.append(type(recorder))
        return done

    monkeypatch.setattr(steps, "_attempt", noted)
    return kinds


def both(model: nn.Module, first: Tensor, second: Tensor) -> tuple[Measured, Measured]:
    """Returns the figures of a second batch: the quick way, and recorded in full."""
    device = torch.device("cpu")
    twin = Twin(model, device=device, dtype=None)
    with twin.standing_in(model):
        setting = Setting(
            model=model, twin=twin, loss=None, device=device, dtype=None, seed=3
        )
        given = batch(first)
        _, known = measure(setting, given, number=0, known=(), zeros=True)
        found = []
        for visits in (known.visits, None):
            known.visits = visits
            done, _ = measure(
                setting, batch(second), number=1, known=[known], zeros=False
            )
            found.append(done)
    return found[0], found[1]


def plain(done: Measured) -> dict[str, object]:
    figures = dataclasses.asdict(done)
    for sums in figures["activations"].values():
        alive = sums.pop("alive")
        sums["alive"] = None if alive is None else alive.tolist()
    return figures


CASES = {
    "many": (Many, noise(7, 6), noise(7, 6, seed=1)),
    "images": (Convolutions, noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=1)),
    "attention": (Attention, noise(3, 5, 8), noise(3, 5, 8, seed=1)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_quick_way_has_the_figures_of_the_recorder(
    case: str, watched: list[type]
) -> None:
    make, first, second = CASES[case]
    quick, full = both(make(), first, second)

    assert watched == [Recorder, Follower, Recorder]
    assert repr(plain(full)) == repr(plain(quick))
    assert quick.activations
    assert quick.at
    assert quick.parameters


def test_a_call_that_is_left_out_is_noticed(watched: list[type]) -> None:
    up = noise(5, 3).abs()
    quick, full = both(Sometimes(), up, -up)

    assert watched == [Recorder, Recorder, Recorder]
    assert repr(plain(full)) == repr(plain(quick))


def test_calls_that_change_places_are_noticed(watched: list[type]) -> None:
    up = noise(5, 3).abs()
    both(Swapping(), up, up + 1)
    both(Swapping(), up, -up)

    assert watched == [Recorder, Follower, *[Recorder] * 4]


def test_what_strays_once_is_not_followed_again(watched: list[type]) -> None:
    class Counting(Swapping):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).runs += 1
            return super().forward(x)

    up = noise(5, 3).abs()
    scan_all(Counting(), [batch(x) for x in (up, up + 1, -up, up, -up)])

    # One pass is done twice, that of the first batch that strays.
    assert Counting.runs == 6
    assert watched == [Recorder, Follower, *[Recorder] * 3]


def test_a_model_with_segments_is_recorded_in_full(watched: list[type]) -> None:
    flow = scan_all(Segments(), [batch(noise(4, 3, seed=s)) for s in range(3)])

    assert watched == [Recorder] * 3
    assert flow.batches == 3


def test_a_later_batch_that_fails_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    given: list[Batch] = [batch(noise(4, 3)), batch(noise(4, 5))]

    with pytest.raises(CannotRun) as caught:
        scan_all(model, given)

    assert caught.value.message.startswith(
        "0 (Linear) failed on input [4, 5] float32; it takes 3 input features"
    )
