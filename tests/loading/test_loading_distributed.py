"""Checkpoints of torch.distributed.checkpoint (rows 91-93).

Honest ones are written by torch itself, and read by torch for comparison; hostile and
damaged ones are made of them, by torch's own classes.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.loading.builders import read, refusal, same_state, tiny, tiny_arch
from vgaudit.errors import BadConfig, CannotLoad, VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import dcp_metadata, inspect
from vgaudit.loading.dcp import open_checkpoint
from vgaudit.loading.local_file import examine

pytest.importorskip("torch.distributed.checkpoint")
from torch.distributed.checkpoint import FileSystemWriter, metadata, save
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

AGAIN = "the file is damaged or hostile: copy the checkpoint again"


def written(folder: Path, state: dict[str, Any], **options: Any) -> Path:
    """A checkpoint as one process writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(state, storage_writer=FileSystemWriter(folder, **options), no_dist=True)
    return folder


def trained() -> tuple[nn.Module, dict[str, Any]]:
    """A model after a step, and what a training script saves of it."""
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "config": {"name": "a run", "rates": [0.1, 0.2]},
    }
    return model, state


def changed(folder: Path, change: Callable[[Any], Any]) -> Path:
    """A checkpoint whose metadata somebody rewrote."""
    path = folder / ".metadata"
    found = pickle.loads(path.read_bytes())  # noqa: S301 - torch wrote it just now
    found = change(found) or found
    path.write_bytes(pickle.dumps(found))
    return folder


# ------------------------------------------------------------------- what is read


def test_the_weights_of_a_training_load_bit_equal(tmp_path: Path) -> None:
    model, state = trained()
    folder = written(tmp_path / "step", state)

    found = read(folder, arch=tiny_arch(tmp_path))

    assert same_state(model, found.module)
    assert "distributed-checkpoint" == found.target.format
    assert "taken from the entry model" in found.target.notes
    assert examine(folder / ".metadata").sha256 == found.target.sha256


@pytest.mark.parametrize("spec", ["{}/.metadata", "{}#model", "{}"])
def test_each_way_to_name_it_reads_the_same(tmp_path: Path, spec: str) -> None:
    model, state = trained()
    folder = written(tmp_path / "step", state)

    assert same_state(model, read(spec.format(folder), arch=tiny_arch(tmp_path)).module)


def test_weights_for_a_named_architecture(tmp_path: Path) -> None:
    model, state = trained()
    folder = written(tmp_path / "step", state)

    assert same_state(model, read(tiny_arch(tmp_path), weights=str(folder)).module)


KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64),
    *(torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn),
)


@pytest.mark.parametrize(
    "options", [{}, {"single_file_per_rank": False}, {"thread_count": 3}], ids=str
)
def test_every_tensor_is_what_torch_itself_reads(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Any] = {
        str(kind): (torch.randn(5, 3, generator=generator) * 4).to(kind)
        for kind in KINDS
    }
    state |= {"number": torch.tensor(2.5), "none": torch.empty(0, 4)}
    state |= {"transposed": torch.arange(6.0).reshape(2, 3).t()}
    folder = written(tmp_path / "all", {"net": state, "step": 1}, **options)
    dcp_to_torch_save(folder, tmp_path / "all.pt")
    expected = torch.load(tmp_path / "all.pt", weights_only=True)["net"]

    checkpoint = open_checkpoint(examine(folder / ".metadata"))
    found = checkpoint.fetched(checkpoint.root["net"])

    assert expected.keys() == found.keys() == state.keys()
    for name, tensor in expected.items():
        assert (tensor.dtype, tensor.shape) == (found[name].dtype, found[name].shape)
        assert raw(tensor) == raw(found[name]), name
        parts = checkpoint.rows(checkpoint.root["net"][name])
        for first in range(len(tensor) if tensor.dim() else 0):
            assert raw(tensor[first:]) == raw(parts.rows(first, len(tensor)))
            assert raw(tensor[:first]) == raw(parts.rows(0, first))


def raw(tensor: Tensor) -> list[int]:
    """The bytes of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_fsdp_wrapped_module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    model = tiny()
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}

    found = read(
        written(tmp_path / "x", {"state": {}, "model": state}), arch=tiny_arch(tmp_path)
    )

    assert same_state(model, found.module)
    assert (prefix,) == found.target.stripped_prefixes


def test_a_state_dict_alone_needs_no_key(tmp_path: Path) -> None:
    model = tiny()

    assert same_state(
        model,
        read(
            written(tmp_path / "x", model.state_dict()), arch=tiny_arch(tmp_path)
        ).module,
    )


def test_extra_state_of_plain_values_goes_along(tmp_path: Path) -> None:
    code = tmp_path / "extra.py"
    code.write_text(EXTRA)
    scope: dict[str, Any] = {}
    exec(EXTRA, scope)  # noqa: S102 - the text below
    model = scope["Net"]()
    model.scale = [1.5, "x"]
    folder = written(tmp_path / "x", {"model": model.state_dict()})

    found = read(folder, arch=f"{code}:Net").module

    assert [1.5, "x"] == found.scale
    assert torch.equal(model.weight, found.weight)


def test_a_folder_of_transformers_is_filled(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=16
    )
    config.architectures = ["GPT2LMHeadModel"]
    torch.manual_seed(4)
    model = transformers.GPT2LMHeadModel(config)
    folder = written(tmp_path / "gpt", {"model": model.state_dict()})
    config.save_pretrained(folder)

    for spec in (str(folder), f"hf:{folder}"):
        found = read(spec)
        assert same_state(model, found.module)
        assert "distributed-checkpoint" == found.target.format


def test_inspect_tells_it_and_reads_no_tensor(tmp_path: Path) -> None:
    folder = written(tmp_path / "step", trained()[1])
    for path in folder.glob("*.distcp"):
        path.unlink()

    found = inspect(str(folder), LoadOptions())

    assert "distributed-checkpoint" == found.format
    assert "T0" == found.tier
    assert ("model",) == found.entries
    assert (4, 23) == (found.tensors, found.parameters)
    assert {"float32": 4} == found.dtypes


@pytest.mark.usefixtures("here")
def test_scans_and_conversions_take_it(cli: Any, tmp_path: Path) -> None:
    model, state = trained()
    folder, arch = written(tmp_path / "step", state), tiny_arch(tmp_path)
    plain = tmp_path / "plain.pt"
    torch.save(model.state_dict(), plain)
    reports = []
    for spec in (folder, plain):
        out = cli("scan", str(spec), "--arch", arch, "--format", "json")
        reports.append(json.loads(out.out))
    one, other = reports
    assert one["audit"]["flow"] == other["audit"]["flow"]
    assert one["findings"] == other["findings"]

    out = tmp_path / "out.safetensors"
    words = ("--arch", arch, "-o", str(out))
    assert 0 == cli("convert", str(folder), "--to", "rescale", *words).code
    assert out.exists()


# --------------------------------------------------------------- what is refused


def test_two_sets_of_weights_ask_for_a_key(tmp_path: Path) -> None:
    state = tiny().state_dict()
    folder = written(tmp_path / "x", {"model": state, "ema": state})

    message, hint = refusal(folder, BadConfig, arch=tiny_arch(tmp_path))

    assert f"{folder} holds several sets of weights: model, ema" == message
    assert "choose --key model|ema" == hint


def test_keys_that_do_not_fit_say_what_they_say_elsewhere(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["3.bias"] = state.pop("2.bias")

    message, hint = refusal(
        written(tmp_path / "x", {"model": state}), CannotLoad, arch=tiny_arch(tmp_path)
    )

    missing, unexpected = "1 missing: 2.bias", "1 unexpected: 3.bias"
    fits = "does not fit Sequential"
    assert f"{tmp_path / 'x'} {fits}: {missing}; {unexpected}" == message
    assert "check --arch, or load what fits: --allow-missing" == hint


def test_a_checkpoint_without_metadata_was_not_finished(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", trained()[1])
    (folder / ".metadata").unlink()

    message, hint = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    assert f"{folder} holds a distributed checkpoint without its .metadata" == message
    assert hint.startswith("it is written last: the saving did not end")


def test_one_of_its_files_names_the_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", trained()[1])
    path = next(folder.glob("*.distcp"))

    for found in (
        refusal(path, CannotLoad, arch=tiny_arch(tmp_path)),
        refusal(tiny_arch(tmp_path), CannotLoad, weights=str(path)),
    ):
        told = (f"{path} is one file of a distributed checkpoint", f"{folder}")
        assert told == (found[0], found[1].removeprefix("give its folder: "))


def test_a_missing_and_a_short_file_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", {"model": tiny().state_dict()})
    (path,) = folder.glob("*.distcp")
    content = path.read_bytes()
    path.write_bytes(content[:-1])

    message, _ = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    assert message.startswith(f"{path} is truncated: ")
    assert message.endswith(
        f"ends at byte {len(content)}, the file has {len(content) - 1}"
    )
    path.unlink()
    message, _ = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))
    assert f"{folder}/.metadata: the shard {path.name} is missing" == message


def test_a_flipped_byte_of_a_tensor_is_found(tmp_path: Path) -> None:
    state = {"0.weight": torch.full((3, 4), 1.25)}
    folder = written(tmp_path / "x", {"model": {**tiny().state_dict(), **state}})
    (path,) = folder.glob("*.distcp")
    content = path.read_bytes()
    at = content.index(state["0.weight"].numpy().tobytes())
    path.write_bytes(content[: at + 1] + b"\x7f" + content[at + 2 :])

    message, _ = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    assert message.startswith(f"model.0.weight: {path}: CRC mismatch in record data/0")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["root", "planner", "name", "version"])
def test_hostile_metadata_does_not_run(
    tmp_path: Path, where: str, protocol: int
) -> None:
    marker = tmp_path / "marker"
    folder = written(tmp_path / "x", trained()[1])
    attack = Runs(marker)
    path = folder / ".metadata"
    found: Any = pickle.loads(path.read_bytes())  # noqa: S301 - torch wrote it
    if where == "root":
        found = attack
    elif where == "planner":
        found.planner_data = attack
    elif where == "version":
        found.version = [attack]
    else:
        found.state_dict_metadata["x"] = attack
    path.write_bytes(pickle.dumps(found, protocol))

    for spec in (folder, f"{folder}#model"):
        message, hint = refusal(
            spec, CannotLoad, arch=tiny_arch(tmp_path), trust_pickle="yes"
        )
        sha256 = examine(path).sha256
        names = message.removeprefix(f"{path} refused: needs global")
        assert names.endswith(
            f" {os.mkdir.__module__}.mkdir (tier T3, sha256 {sha256})"
        )
        assert hint.startswith("torch would run it, and no option reads it here")
    with pytest.raises(CannotLoad):
        inspect(str(folder), LoadOptions())
    assert not marker.exists()


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_hostile_extra_state_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = tmp_path / "extra.py"
    code.write_text(EXTRA)
    state = {"weight": torch.zeros(2, 2), "_extra_state": Runs(marker)}
    folder = written(tmp_path / "x", {"model": state})

    message, _ = refusal(folder, CannotLoad, arch=f"{code}:Net")

    (path,) = folder.glob("*.distcp")
    name = f"{os.mkdir.__module__}.mkdir"
    told = f"model._extra_state needs globals {name} (tier T3)"
    assert f"{path} refused: {told}" == message
    assert not marker.exists()


def test_what_is_not_asked_for_is_not_even_read(tmp_path: Path) -> None:
    """A training keeps many things beside the weights; they may be anything."""
    model, marker = tiny(), tmp_path / "marker"
    state = {"model": model.state_dict(), "hook": Runs(marker)}

    assert same_state(
        model, read(written(tmp_path / "x", state), arch=tiny_arch(tmp_path)).module
    )
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../evil.distcp", "/etc/passwd", "a/b", ""])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "x", {"model": tiny().state_dict()})

    def move(found: Any) -> None:
        for info in found.storage_data.values():
            info.relative_path = name

    message, _ = refusal(changed(folder, move), CannotLoad, arch=tiny_arch(tmp_path))

    assert message.startswith(f"{folder}/.metadata refused: the shard {name} is not a")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", {"model": tiny().state_dict()})
    (path,) = folder.glob("*.distcp")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    message, _ = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    assert f"the shard {path.name} is a link out of its folder" in message


def with_chunks(*chunks: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    """Gives the first weight other chunks than it has."""

    def change(found: Any) -> None:
        name = "model.0.weight"
        entry = found.state_dict_metadata[name]
        (place,) = (v for k, v in found.storage_data.items() if k.fqn == name)
        made = []
        for offsets, sizes in chunks:
            made.append(
                metadata.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
            )
            found.storage_data[metadata.MetadataIndex(name, offsets)] = place
        found.state_dict_metadata[name] = replace(entry, chunks=made)

    return change


def unsized(found: Any) -> None:
    found.state_dict_metadata["model.0.weight"].size = (3, 4)


def without_places(found: Any) -> None:
    found.storage_data = {}


def beyond_memory(found: Any) -> None:
    entry = found.state_dict_metadata["model.0.weight"]
    entry.size = torch.Size((2**62, 2**62))
    entry.chunks[0].sizes = entry.size


def inside_of_a_tensor(found: Any) -> None:
    found.planner_data["model.0.bias"] = ("model", "0.weight", "x")


def at_one_path(found: Any) -> None:
    found.planner_data["model.0.weight"] = ("model", "0.bias")


DAMAGE: dict[str, tuple[Any, str]] = {
    "other object": (lambda found: [1], "no Metadata where torch writes one"),
    "no size": (unsized, "no torch.Size where torch writes one"),
    "no places": (
        without_places,
        "it does not say where the chunk [0, 0] of model.0.weight is",
    ),
    "hole": (
        with_chunks(((0, 0), (2, 4))),
        "the chunks of model.0.weight do not add up to its shape [3, 4]",
    ),
    "overlap": (
        with_chunks(((0, 0), (2, 4)), ((1, 0), (1, 4))),
        "chunks of model.0.weight overlap",
    ),
    "overlap of columns": (
        with_chunks(((0, 0), (3, 2)), ((0, 1), (3, 2))),
        "chunks of model.0.weight overlap",
    ),
    "beyond": (
        with_chunks(((1, 0), (3, 4))),
        "a chunk of model.0.weight reaches beyond its shape [3, 4]",
    ),
    "dimensions": (
        with_chunks(((0,), (12,))),
        "a chunk of model.0.weight has other dimensions than [3, 4]",
    ),
    "beyond memory": (beyond_memory, "a tensor is larger than any memory"),
    "inside": (inside_of_a_tensor, "model.0.bias lies inside of a tensor"),
    "one path": (at_one_path, "two entries have the path of model.0.bias"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_no_torch_writes_is_refused(tmp_path: Path, damage: str) -> None:
    change, reason = DAMAGE[damage]
    folder = changed(written(tmp_path / "x", {"model": tiny().state_dict()}), change)

    message, hint = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    path = folder / ".metadata"
    told = f"{path} is no metadata of torch.distributed.checkpoint: {reason}"
    assert (told, AGAIN) == (message, hint)


def test_metadata_and_files_of_two_checkpoints_are_told_apart(tmp_path: Path) -> None:
    one = written(tmp_path / "one", {"model": tiny().state_dict()})
    wide = {k: v.double() for k, v in tiny().state_dict().items()}
    other = written(tmp_path / "other", {"model": wide})
    # The same places, as far as the longer ones reach.
    (other / ".metadata").rename(tmp_path / "kept")
    (one / ".metadata").rename(other / ".metadata")

    with pytest.raises(CannotLoad):
        read(other, arch=tiny_arch(tmp_path))

    def as_double(found: Any) -> None:
        properties = found.state_dict_metadata["model.0.weight"].properties
        properties.dtype = torch.float64

    third = written(tmp_path / "third", {"model": tiny().state_dict()})
    message, _ = refusal(
        changed(third, as_double), CannotLoad, arch=tiny_arch(tmp_path)
    )
    (path,) = third.glob("*.distcp")
    said = ".metadata says [3, 4] torch.float64"
    assert f"{path}: model.0.weight is [3, 4] torch.float32, and {said}" == message


def test_what_was_written_through_an_extension_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", {"model": tiny().state_dict()})

    def pressed(found: Any) -> None:
        for info in found.storage_data.values():
            info.transform_descriptors = ["stream.zstd"]

    message, hint = refusal(
        changed(folder, pressed), CannotLoad, arch=tiny_arch(tmp_path)
    )

    assert message.endswith("was written through stream.zstd")
    assert "save the checkpoint without extensions" == hint


@pytest.mark.parametrize("cut", [1, 100, 0.5, -1])
def test_truncated_metadata_is_named(tmp_path: Path, cut: float) -> None:
    folder = written(tmp_path / "x", {"model": tiny().state_dict()})
    path = folder / ".metadata"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut) if cut == 0.5 else int(cut)])

    message, hint = refusal(folder, CannotLoad, arch=tiny_arch(tmp_path))

    assert message.startswith(f"{path} is no metadata of torch.distributed.checkpoint")
    assert hint == AGAIN


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("dcp") / "x", trained()[1])


@settings(max_examples=60)
@given(
    place=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=6),
    keep=st.booleans(),
)
def test_damaged_metadata_ends_in_our_errors(
    honest: Path, place: float, change: bytes, keep: bool
) -> None:
    path = honest / ".metadata"
    content = path.read_bytes()
    at, said = int(place * len(content)), ""
    path.write_bytes(content[:at] + change + content[at + keep * len(change) :])
    try:
        read(honest, arch=tiny_arch(honest.parent))
    except VgauditError as error:
        said = error.message
    finally:
        path.write_bytes(content)

    assert "\n" not in said


def test_what_is_known_is_what_torch_writes(honest: Path) -> None:
    """No class is on the list that this torch does not have."""
    import importlib

    for name in dcp_metadata.KNOWN:
        module, _, found = name.rpartition(".")
        if module != "pathlib._local":
            assert hasattr(importlib.import_module(module), found), name


EXTRA = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))
        self.scale = 1.0

    def forward(self, x):
        return x @ self.weight

    def get_extra_state(self):
        return self.scale

    def set_extra_state(self, state):
        self.scale = state
"""
