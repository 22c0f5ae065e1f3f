"""What a conversion must survive or name: wrappers, devices, failed parity."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.treatments import treat

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 2))


@pytest.mark.parametrize("to", ["ar", "adact"])
@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile], ids=["dp", "compile"]
)
def test_wrappers_are_looked_through(wrap: Any, to: str) -> None:
    wanted = ConvertOptions(to=to, preserve=True)  # type: ignore[arg-type]
    done = treat(wrap(net()), [Batch(args=(X,), size=16)], wanted)
    assert type(done.model) is nn.Sequential
    assert torch.equal(done.model(X), net()(X))


def test_scripts_are_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net())
    with pytest.raises(CannotRun, match="is TorchScript"):
        treat(scripted, [Batch(args=(X,), size=16)], ConvertOptions(to="adact"))


def test_parameters_on_several_devices_are_named() -> None:
    model = net()
    model[2].to("meta")
    with pytest.raises(CannotRewrite, match="several devices: cpu, meta"):
        treat(model, [Batch(args=(X,), size=16)], ConvertOptions(to="ar"))


class Functional(nn.Module):
    """A function of a module, one that no method calls, and an output activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = outside(self.b(F.sigmoid(self.a(x))))
        return torch.sigmoid(self.c(z))


def outside(z: Tensor) -> Tensor:
    return further(z)


def further(z: Tensor) -> Tensor:
    return F.sigmoid(z)


def test_no_activation_is_left_in_silence() -> None:
    """Every call is converted or refused with a reason and its line."""
    done = treat(Functional(), [Batch(args=(X,), size=16)], ConvertOptions(to="adact"))
    assert [e.activations for e in done.edits] == [("sigmoid#1",)]
    reasons = {refusal.path: refusal.reason for refusal in done.refusals}
    assert "further, which is no method" in reasons["sigmoid#2"]
    assert "an output activation" in reasons["sigmoid#3"]
    assert all(refusal.source is not None for refusal in done.refusals)


CHANGING = '''
import os
import torch
from torch import nn


class Net(nn.Module):
    """Depends on a number that no state_dict and no seed says."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0 + int.from_bytes(os.urandom(4), "big")
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(self.scale * torch.relu(self.a(x)))


def net():
    return Net()
'''


def test_what_does_not_read_back_equal_leaves_no_file(
    shell: Any, tmp_path: Path
) -> None:
    code, out = tmp_path / "net.py", tmp_path / "out.safetensors"
    code.write_text(CHANGING)
    options = ("--to", "ar", "--input", "8x6", "-o", str(out))
    done = shell("convert", f"{code}:net", *options)
    assert done.code == 3
    assert "VG702 the model read back differs" in done.err
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["net.py"]


def test_a_conversion_that_gives_nan_is_refused(monkeypatch: Any) -> None:
    convert = importlib.import_module("vgaudit.treatments.convert")

    def broken(model: nn.Module, *_args: Any) -> Any:
        work = convert._Work(edits=[Edit(path="0", kind="Linear", change="")])
        with torch.no_grad():
            model[0].weight.fill_(float("nan"))
        return work

    monkeypatch.setattr(convert, "_apply", broken)
    with pytest.raises(CannotRewrite, match=r"VG702 .* NaN"):
        treat(net(), [Batch(args=(X,), size=16)], ConvertOptions(to="ar"))
