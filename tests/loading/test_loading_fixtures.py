"""The fixtures: rebuilt bit-equal, small, and loadable as their page says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.loading.builders import (
    MODELS,
    ROOT,
    fixture_arch,
    identical,
    read,
    same_state,
)
from vgaudit.loading.loaded import nonfinite

FIXTURES = ROOT / "fixtures"
SAVED = sorted(
    path.name
    for path in FIXTURES.iterdir()
    if path.suffix in (".pt", ".ckpt", ".safetensors")
)


def imported(name: str) -> ModuleType:
    """A module of ``fixtures/``."""
    spec = importlib.util.spec_from_file_location(
        f"vgaudit_fixture_{name}", FIXTURES / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL_CODE = imported("models")
BATCHES = imported("batches")


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in an output."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif not isinstance(value, tuple | list):
        value = list(vars(value).values())
    return [t for part in value for t in tensors(part)]


def test_every_factory_has_inputs_and_a_line_on_the_page() -> None:
    page = (FIXTURES / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))

    factories = {
        name
        for name, value in vars(MODEL_CODE).items()
        if hasattr(value, "__wrapped__") and name != "scale_weights"
    }

    assert factories == set(BATCHES.NAMES)
    assert factories | set(SAVED) == listed


@pytest.mark.parametrize("name", BATCHES.NAMES)
def test_every_model_runs_backward_and_is_the_same_each_time(name: str) -> None:
    before = torch.random.get_rng_state()
    model, again = (getattr(MODEL_CODE, name)() for _ in range(2))

    assert same_state(model, again)
    assert torch.equal(before, torch.random.get_rng_state())
    output = model(*BATCHES.inputs(name, size=4))
    sum(t.float().square().sum() for t in tensors(output)).backward()

    assert () == nonfinite(model)
    assert any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", SAVED)
def test_saved_fixtures_hold_the_weights_of_their_model(name: str) -> None:
    model = getattr(MODEL_CODE, name.partition(".")[0])()
    whole = name in ("sigmoid_mlp.pt", "inplace_relu_cnn.pt")
    key = "model" if "checkpoint" in name else None

    loaded = read(
        FIXTURES / name,
        arch=None if whole else fixture_arch(name.partition(".")[0]),
        key=key,
    )

    if name == "deep_sigmoid_mlp.safetensors":
        model = model.half().float()
    assert same_state(model, loaded.module)
    assert (FIXTURES / name).stat().st_size <= 100_000


@pytest.mark.slow
def test_the_script_writes_the_same_bytes(tmp_path: Path) -> None:
    script = str(FIXTURES / "make.py")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True)

    assert SAVED == sorted(path.name for path in tmp_path.iterdir())
    for name in SAVED:
        assert (FIXTURES / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_dead_units_are_dead_and_rails_are_reached() -> None:
    dead = MODEL_CODE.dead_relu_mlp()
    values = dead.layers(*BATCHES.inputs("dead_relu_mlp", size=256))
    assert 0 == values.max()

    saturated = MODEL_CODE.saturated_tanh_mlp()
    values = saturated.layers(*BATCHES.inputs("saturated_tanh_mlp", size=256))
    assert (values.abs() > 0.97).float().mean() > 0.95


def test_tied_and_reused_parts_are_one() -> None:
    tied = MODEL_CODE.tied_embeddings()
    assert tied.head.weight is tied.embedding.weight

    calls = []
    reused = MODEL_CODE.reused_module()
    reused.act.register_forward_hook(lambda *a: calls.append(1))
    reused(*BATCHES.inputs("reused_module"))
    assert 4 == len(calls)


def test_zero_heads_are_zero_and_branches_are_scaled() -> None:
    assert not MODEL_CODE.zero_head_vit().head.weight.any()
    scales = [
        m.layer_scale
        for m in MODEL_CODE.layer_scale_net().modules()
        if hasattr(m, "layer_scale")
    ]
    assert 4 == len(scales)
    assert all(identical(s.detach(), torch.full_like(s, 1e-6)) for s in scales)


def test_the_page_of_the_repository_and_the_factories_agree() -> None:
    assert MODELS.is_file()
    assert isinstance(MODEL_CODE.tanh_mlp(depth=3), nn.Module)
    assert 3 == sum(isinstance(m, nn.Tanh) for m in MODEL_CODE.tanh_mlp(3).modules())
