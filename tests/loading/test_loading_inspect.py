"""``inspect``: what is told of a model without running anything of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.loading.builders import ROOT, fixture_arch, saved, tiny, torchvision_or_skip
from vgaudit.errors import CannotLoad, VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import Inspection, inspect


def look(spec: Path | str, **options: Any) -> Inspection:
    """Inspects, and checks that the answer is JSON."""
    found = inspect(str(spec), LoadOptions(**options))
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    return found


def test_a_state_dict_is_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", tiny().state_dict())

    found = look(path)

    assert ("state_dict", "T0", 4, 23) == (
        found.format,
        found.tier,
        found.tensors,
        found.parameters,
    )
    assert {"float32": 4} == found.dtypes
    assert ("0.weight", "0.bias", "2.weight", "2.bias") == found.keys
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found.sha256
    assert path.stat().st_size == found.size
    assert () == found.unsafe_globals


def test_safetensors_is_told_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().half().state_dict(), path, metadata={"author": "me"})

    found = look(path)

    assert ("safetensors", 4, 23) == (found.format, found.tensors, found.parameters)
    assert {"float16": 4} == found.dtypes
    assert {"author": "me"} == found.metadata


def test_a_checkpoint_names_its_entries(tmp_path: Path) -> None:
    state = tiny().state_dict()
    average = {key: value / 2 for key, value in state.items()}
    path = saved(tmp_path / "a.pt", {"model": state, "ema": average, "epoch": 1})

    found = look(path)

    assert "checkpoint" == found.format
    assert ("model", "ema") == found.entries
    assert ("model", "ema", "epoch") == found.keys
    assert any("--key" in note for note in found.notes)
    assert 4 == look(f"{path}#ema").tensors
    assert 4 == look(path, key="model").tensors


def test_a_pickled_module_names_its_class(tmp_path: Path) -> None:
    found = look(saved(tmp_path / "a.pt", nn.Sequential(nn.Linear(2, 3))))

    assert ("module-pickle", "T1", "Sequential", 9) == (
        found.format,
        found.tier,
        found.architecture,
        found.parameters,
    )


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)


def test_a_class_of_the_user_is_counted_without_importing_it(tmp_path: Path) -> None:
    found = look(saved(tmp_path / "a.pt", Unknown()))

    name = f"{Unknown.__module__}.Unknown"
    assert ("module-pickle", "T2", name, 2, 9) == (
        found.format,
        found.tier,
        found.architecture,
        found.tensors,
        found.parameters,
    )
    assert (name,) == found.unsafe_globals


def test_wrappers_in_the_keys_are_stated(tmp_path: Path) -> None:
    state = {f"module._orig_mod.{k}": v for k, v in tiny().state_dict().items()}

    assert ("module.", "_orig_mod.") == look(
        saved(tmp_path / "a.pt", state)
    ).stripped_prefixes


def test_torchvision_weights_are_recognised(tmp_path: Path) -> None:
    torchvision = torchvision_or_skip()
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()

    found = look(saved(tmp_path / "a.pt", state))

    assert "torchvision:squeezenet1_1 (num_classes=4)" == found.architecture


def test_torchscript_is_described(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.script(tiny()).save(str(path))

    found = look(path)

    assert ("torchscript", "T2") == (found.format, found.tier)
    assert any("constants.pkl" in key for key in found.keys)
    assert "TorchScript" in found.notes[0]


def test_foreign_formats_are_described(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + bytes(100))

    found = look(path)

    assert ("gguf", "") == (found.format, found.tier)
    assert "a GGUF model" == found.notes[0]


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", tiny())
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CannotLoad, match="truncated or corrupt"):
        look(path)


def test_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "mk_loud.py"
    path.write_text("raise SystemExit('ran')\n")

    found = look(f"{path}:factory")

    assert ("factory", "T2", "factory") == (
        found.format,
        found.tier,
        found.architecture,
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found.sha256
    assert "mk_loud" not in sys.modules


def test_a_zoo_model_is_counted() -> None:
    torchvision_or_skip()

    found = look("torchvision:squeezenet1_1")

    assert ("torchvision", "T0") == (found.format, found.tier)
    assert 1_235_496 == found.parameters  # torchvision's own figure


def test_a_directory_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CannotLoad, match="looked for config"):
        look(tmp_path)


FIXTURES = sorted(
    path
    for path in (ROOT / "fixtures").iterdir()
    if path.suffix in (".pt", ".ckpt", ".safetensors")
)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_inspection_counts_what_loading_loads(path: Path) -> None:
    from vgaudit.loading import load

    name = path.name.partition(".")[0]
    module = load(fixture_arch(name), LoadOptions()).module

    found = look(path, key="ema" if "checkpoint" in path.name else None)

    assert len(module.state_dict()) == found.tensors
    assert sum(v.numel() for v in module.state_dict().values()) == found.parameters


@pytest.mark.parametrize("spec", ["", "nowhere.pt", "resnet18", "torchvision:no"])
def test_errors_are_those_of_loading(spec: str) -> None:
    with pytest.raises(VgauditError):
        look(spec)
