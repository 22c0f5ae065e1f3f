"""Data that a model does not take: the hint tells types from names from shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from vgaudit.errors import CannotRun

ROWS = 40
LABELS = torch.arange(ROWS) % 3


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.f = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.a(x).mean((2, 3)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.f = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.e(x).mean(1))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.f(torch.cat([self.a(x), self.b(z)], 1).tanh())


class Whole(nn.Module):
    """Reads the dict by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.f = dense()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.f(batch["z"])


class Wrong(nn.Module):
    """Calls what it holds with too few inputs, whatever it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Two()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def points(features: int = 8) -> Tensor:
    return torch.randn(ROWS, features, generator=torch.Generator().manual_seed(0))


def retrained(model: nn.Module, data: Any) -> object:
    return vgaudit.retrain(model, data, method="adam", epochs=1)


def scanned(model: nn.Module, data: Any) -> object:
    return vgaudit.scan(model, data)


CALLS = pytest.mark.parametrize("call", [retrained, scanned])


def hint(call: Callable[..., object], model: nn.Module, data: Any) -> str:
    with pytest.raises(CannotRun) as caught:
        call(model, data)
    return caught.value.hint


@pytest.mark.parametrize(
    ("model", "x", "mended"),
    [
        (dense(), points().double(), Tensor.float),
        (dense(), points().half(), Tensor.float),
        (dense(), points().long(), Tensor.float),
        (dense().double(), points(), Tensor.double),
        (Convolution(), torch.zeros(ROWS, 1, 5, 5).double(), Tensor.float),
        (nn.Sequential(nn.LayerNorm(8), dense()), points().double(), Tensor.float),
        (nn.Sequential(nn.BatchNorm1d(8), dense()), points().double(), Tensor.float),
        (Words(), torch.ones(ROWS, 6), Tensor.long),
    ],
)
def test_a_wrong_type_is_told_and_the_advice_runs(
    model: nn.Module, x: Tensor, mended: Callable[[Tensor], Tensor]
) -> None:
    told = hint(retrained, model, (x, LABELS))
    wanted = str(mended(x).dtype)

    assert f"the inputs are {str(x.dtype).removeprefix('torch.')}" in told
    assert wanted in told or (wanted == "torch.int64" and "x.long()" in told)
    assert "shape" not in told
    retrained(model, (mended(x), LABELS))


@CALLS
def test_a_wrong_type_is_a_matter_of_type_to_every_command(
    call: Callable[..., object],
) -> None:
    """A scan names type and shape, beside the input that has both."""
    told = hint(call, dense(), (points().double(), LABELS))

    assert "type" in told


@CALLS
@pytest.mark.parametrize(
    ("model", "data", "names", "signature"),
    [
        (dense(), {"x": points(), "y": LABELS}, "x, y", "Sequential.forward(input)"),
        (
            Two(),
            {"a": points(), "b": points(), "y": LABELS},
            "a, b",
            "Two.forward(x, z)",
        ),
        (Two(), {"x": points(), "y": LABELS}, "x", "Two.forward(x, z)"),
        (Whole(), {"x": points(), "y": LABELS}, "x, y", "Whole.forward(batch)"),
    ],
)
def test_names_that_do_not_fit_are_told_beside_those_that_do(
    call: Callable[..., object],
    model: nn.Module,
    data: dict[str, Tensor],
    names: str,
    signature: str,
) -> None:
    told = hint(call, model, data)

    assert told.startswith(f"the data has the names {names}, and ")
    assert signature in told


def test_an_input_that_is_missing_is_told_with_the_signature() -> None:
    assert "Two.forward(x, z)" in hint(retrained, Two(), points())
    assert "every input of forward" in hint(scanned, Two(), points())


@CALLS
def test_what_the_model_itself_calls_wrongly_is_no_matter_of_the_data(
    call: Callable[..., object],
) -> None:
    told = hint(call, Wrong(), (points(), LABELS))

    assert "the data has" not in told
    assert "called as" not in told


@CALLS
def test_a_wrong_shape_stays_one(call: Callable[..., object]) -> None:
    assert "check the shape" in hint(call, dense(), (points(5), LABELS))


def test_a_wrapped_model_is_told_by_what_is_inside() -> None:
    data = {"a": points(), "b": points(), "y": LABELS}

    assert "Two.forward(x, z)" in hint(retrained, nn.DataParallel(Two()), data)
