"""Models that accelerate spread over memory and disk."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from vgaudit.errors import CannotLoad
from vgaudit.loading.dispatched import gathered, is_dispatched

accelerate = pytest.importorskip("accelerate")

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 2
DISK = {"first": "cpu", "act": "cpu", "second": "disk", "head": "cpu"}


class Tied(nn.Module):
    """Two names of one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act = nn.Linear(6, 6), nn.Tanh()
        self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 2)
        self.second.weight = self.first.weight
        self.register_buffer("gain", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.head(torch.tanh(self.second(x)) * self.gain)


class Plain(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(6, 6)
        self.second.weight.requires_grad_(False)


def spread(model: nn.Module, folder: Path, places: dict[str, str]) -> nn.Module:
    done: nn.Module = accelerate.dispatch_model(
        model,
        device_map=places,
        main_device="cpu",
        offload_dir=str(folder),
        force_hooks=True,
    )
    return done


def test_an_ordinary_model_stays_itself() -> None:
    model = Plain()
    assert gathered(model) is model


def test_weights_come_back_from_the_disk(tmp_path: Path) -> None:
    reference = Plain()
    model = spread(copy.deepcopy(reference), tmp_path, {**DISK, "gain": "cpu"})
    assert model.second.weight.is_meta

    own = gathered(model)

    assert not is_dispatched(own)
    assert own.state_dict().keys() == reference.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            own.state_dict().values(), reference.state_dict().values(), strict=True
        )
    )
    assert not own.second.weight.requires_grad
    assert torch.equal(own(X), reference(X))
    assert own.double()(X.double()).dtype is torch.float64
    assert model.second.weight.is_meta
    assert torch.equal(model(X), reference(X))


def test_ties_stay(tmp_path: Path) -> None:
    model = spread(
        Tied(),
        tmp_path,
        dict.fromkeys(["first", "second"], "disk")
        | {"act": "cpu", "head": "cpu", "gain": "cpu"},
    )

    own = gathered(model)

    assert own.second.weight is own.first.weight
    assert torch.equal(own(X), Tied()(X))


def test_weights_that_are_nowhere_are_named() -> None:
    model = spread(Plain(), Path(), {"": "cpu"})
    model.second.to("meta")

    with pytest.raises(CannotLoad, match=r"second\.weight has no data"):
        gathered(model)


def test_a_scan_measures_what_the_whole_model_has(tmp_path: Path) -> None:
    whole = vgaudit.scan(Plain(), (X, Y), loss="cross-entropy")
    model = spread(Plain(), tmp_path, {**DISK, "gain": "cpu"})

    apart = vgaudit.scan(model, (X, Y), loss="cross-entropy")

    assert apart.audit.flow.layers == whole.audit.flow.layers
    assert model.second.weight.is_meta


@pytest.mark.parametrize("to", ["ar", "adact", "rescale"])
def test_a_conversion_gives_an_ordinary_model(tmp_path: Path, to: str) -> None:
    whole = vgaudit.convert(Plain(), to=to, data=(X, Y), compare=False)  # type: ignore[arg-type]
    model = spread(Plain(), tmp_path, {**DISK, "gain": "cpu"})

    apart = vgaudit.convert(model, to=to, data=(X, Y), compare=False)  # type: ignore[arg-type]

    assert [e.path for e in apart.edits] == [e.path for e in whole.edits]
    assert torch.equal(apart.model(X), whole.model(X))
    assert not is_dispatched(apart.model)
    apart.model(X).sum().backward()


FACTORY = """
import torch
from accelerate import dispatch_model
from torch import nn


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    places = {"0": "disk", "1": "cpu", "2": "cpu"}
    return dispatch_model(
        model, places, main_device="cpu", offload_dir=FOLDER, force_hooks=True
    )
"""


def test_a_factory_may_give_one(tmp_path: Path) -> None:
    code = FACTORY.replace("FOLDER", repr(str(tmp_path / "offload")))
    (tmp_path / "net.py").write_text(code)

    report = vgaudit.scan(f"{tmp_path / 'net.py'}:net", data_options=SHAPE)

    assert len(report.audit.flow.layers) > 0
    assert any("accelerate" in note for note in report.audit.target.notes)


SHAPE = vgaudit.DataOptions(inputs=("4x6",), batches=1)
