"""A harmless marker in each place of a file that could run; none runs by default.

Every hostile file is built here. What holds is the refusal alone: where the command
runs in a process of its own, its sandbox is switched off.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from tests.loading import test_loading_exported as exported

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
"""


class Marks:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


class Writes(nn.Module):
    """Makes a file when it runs."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.layer = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.from_file(self.marker, shared=True, size=4)
        return self.layer(x) + made.sum() * 0


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))


def arch(folder: Path) -> str:
    (folder / "nets.py").write_text(NETS)
    return f"{folder}/nets.py:net"


def in_state(folder: Path, marker: Path) -> list[str]:
    path = folder / "state.pt"
    torch.save({**net().state_dict(), "0.extra": Marks(marker)}, path)
    return [str(path), "--arch", arch(folder)]


def in_old_file(folder: Path, marker: Path) -> list[str]:
    path = folder / "old.pt"
    state = {**net().state_dict(), "x": Marks(marker)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return [str(path), "--arch", arch(folder)]


def in_checkpoint(folder: Path, marker: Path) -> list[str]:
    path = folder / "checkpoint.pt"
    state = {"model": net().state_dict(), "epoch": 3, "hook": [Marks(marker)]}
    torch.save(state, path)
    return [f"{path}#model", "--arch", arch(folder)]


def in_module(folder: Path, marker: Path) -> list[str]:
    model = net()
    model.note = Marks(marker)
    torch.save(model, folder / "module.pt")
    return [str(folder / "module.pt")]


def as_plain_pickle(folder: Path, marker: Path) -> list[str]:
    path = folder / "plain.pt"
    path.write_bytes(pickle.dumps(Marks(marker)))
    return [str(path)]


def in_weights_option(folder: Path, marker: Path) -> list[str]:
    spec, _, architecture = in_state(folder, marker)
    return [architecture, "--weights", spec]


def in_npz(folder: Path, marker: Path) -> list[str]:
    path = folder / "data.npz"
    values = np.array([Marks(marker), 1], dtype=object)
    np.savez(path, x=values, y=np.arange(2))
    return [arch(folder), "--data", str(path)]


def in_npy(folder: Path, marker: Path) -> list[str]:
    path = folder / "data.npy"
    np.save(path, np.array([Marks(marker), 1], dtype=object), allow_pickle=True)
    return [arch(folder), "--data", str(path)]


def in_data(folder: Path, marker: Path) -> list[str]:
    path = folder / "data.pt"
    torch.save({"x": torch.zeros(4, 8), "y": Marks(marker)}, path)
    return [arch(folder), "--data", str(path)]


def in_torchscript(folder: Path, marker: Path) -> list[str]:
    path = folder / "scripted.pt"
    torch.jit.save(torch.jit.script(Writes(str(marker))), path)
    return [str(path)]


def in_program(attack: str) -> Callable[[Path, Path], list[str]]:
    def made(folder: Path, marker: Path) -> list[str]:
        honest, path = folder / "honest.pt2", folder / "program.pt2"
        batch = torch.export.Dim("batch", min=2, max=64)
        program = torch.export.export(
            exported.net().train(), (torch.randn(4, 8),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, honest)
        exported.rewritten(honest, path, **exported.attacks(marker)[attack])
        return [str(path)]

    return made


def in_repository(folder: Path, marker: Path) -> list[str]:
    pytest.importorskip("transformers")
    place = folder / "repository"
    place.mkdir()
    code = f"import os\nos.mkdir({str(marker)!r})\n"
    (place / "configuration_mine.py").write_text(code)
    (place / "modeling_mine.py").write_text(code)
    auto = {
        "AutoConfig": "configuration_mine.MineConfig",
        "AutoModel": "modeling_mine.Mine",
    }
    config = {"model_type": "mine", "architectures": ["Mine"], "auto_map": auto}
    (place / "config.json").write_text(json.dumps(config))
    torch.save(net().state_dict(), place / "pytorch_model.bin")
    return [str(place)]


def in_a_shard_outside(folder: Path, marker: Path) -> list[str]:
    place = folder / "sharded"
    place.mkdir()
    torch.save({"0.weight": Marks(marker)}, folder / "evil.bin")
    weights = dict.fromkeys(net().state_dict(), "../evil.bin")
    index = place / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    return [str(index), "--arch", arch(folder)]


def in_a_shard(folder: Path, marker: Path) -> list[str]:
    spec = Path(in_a_shard_outside(folder, marker)[0])
    os.replace(folder / "evil.bin", spec.parent / "evil.bin")
    spec.write_text(spec.read_text().replace("../", ""))
    return [str(spec), "--arch", arch(folder)]


def in_metadata(folder: Path, marker: Path) -> list[str]:
    place = folder / "step"
    dcp.save({"model": net().state_dict()}, checkpoint_id=place, no_dist=True)
    written = pickle.loads((place / ".metadata").read_bytes())  # noqa: S301 - ours
    written.planner_data["hook"] = Marks(marker)
    (place / ".metadata").write_bytes(pickle.dumps(written))
    return [str(place), "--arch", arch(folder)]


def in_a_chunk(folder: Path, marker: Path) -> list[str]:
    """The object lies where a weight should be."""
    place = folder / "step"
    state = {"model": net().state_dict(), "bad": Marks(marker)}
    dcp.save(state, checkpoint_id=place, no_dist=True)
    written = pickle.loads((place / ".metadata").read_bytes())  # noqa: S301 - ours
    places = {index.fqn: index for index in written.storage_data}
    bad = written.storage_data[places["bad"]]
    written.storage_data[places["model.0.weight"]] = bad
    (place / ".metadata").write_bytes(pickle.dumps(written))
    return [str(place), "--arch", arch(folder)]


PLACES: dict[str, Callable[[Path, Path], list[str]]] = {
    "pickle in a state": in_state,
    "pickle in an old file": in_old_file,
    "pickle in a checkpoint": in_checkpoint,
    "pickle in a module": in_module,
    "plain pickle": as_plain_pickle,
    "pickle behind --weights": in_weights_option,
    "pickle in npz": in_npz,
    "pickle in npy": in_npy,
    "pickle in data": in_data,
    "forward of TorchScript": in_torchscript,
    "sample inputs of .pt2": in_program("sample inputs"),
    "pickled weight of .pt2": in_program("pickled weight"),
    "opaque constant of .pt2": in_program("opaque constant"),
    "shape expression of .pt2": in_program("shape: call"),
    "code of a repository": in_repository,
    "shard outside the folder": in_a_shard_outside,
    "shard": in_a_shard,
    "metadata of a distributed checkpoint": in_metadata,
    "chunk of a distributed checkpoint": in_a_chunk,
}
DATA_PLACES = ("pickle in npz", "pickle in npy", "pickle in data")


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("place", PLACES)
def test_nothing_runs_by_default(cli, place: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    typed = PLACES[place](tmp_path, marker)
    commands = [["scan"], ["scan", "--static"], ["convert", "--to", "rescale"]]
    if place in DATA_PLACES:
        commands = [["scan"], ["retrain", "--with", "adam"]]

    for command, *more in commands:
        outcome = cli(command, *typed, *more)
        assert outcome.code == 3, outcome.err
        assert not marker.exists(), f"{command} ran it"
    if place not in DATA_PLACES:
        cli("inspect", *typed)
        assert not marker.exists(), "inspect ran it"


def test_the_marker_marks(tmp_path: Path) -> None:
    """Loaded without care, the same files run what is in them."""
    for number, (place, suffix) in enumerate(
        [("pickle in a state", "state.pt"), ("pickle in npz", "data.npz")]
    ):
        marker = tmp_path / f"marker{number}"
        PLACES[place](tmp_path, marker)
        if suffix.endswith(".npz"):
            with np.load(tmp_path / suffix, allow_pickle=True) as archive:
                archive["x"]
        else:
            torch.load(tmp_path / suffix, weights_only=False)
        assert marker.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_through_the_command_line_as_it_is_typed(shell, tmp_path: Path) -> None:
    """With its worker, and without its sandbox."""
    for place in ("pickle in a checkpoint", "pickle in npz", "code of a repository"):
        folder = tmp_path / place.replace(" ", "-")
        folder.mkdir()
        marker = folder / "marker"
        typed = PLACES[place](folder, marker)
        outcome = shell("scan", *typed, "--no-sandbox", "--no-progress")

        assert (outcome.code, outcome.out) == (3, "")
        assert len(outcome.err.splitlines()) == 2
        assert not marker.exists()


@pytest.mark.usefixtures("here")
def test_permission_is_what_makes_it_run(cli, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    typed = in_module(tmp_path, marker)

    assert cli("scan", *typed, "--allow-code").code == 3
    assert not marker.exists(), "--allow-code is no permission for pickles"
    cli("scan", *typed, "--trust-pickle")
    assert marker.exists()
