"""safetensors and sharded checkpoints (rows 11, 40-42)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.loading.builders import (
    entry,
    identical,
    read,
    refusal,
    safetensors,
    same_state,
    saved,
    tiny,
    tiny_arch,
)
from vgaudit.errors import CannotLoad, VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import inspect, load
from vgaudit.loading.local_file import examine
from vgaudit.loading.safetensors_file import read_header, read_tensors

KINDS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def test_every_type_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    written = {
        str(kind): (torch.randn(3, 5, generator=generator) * 4).to(kind)
        for kind in KINDS
    }
    written |= {"empty": torch.empty(0, 4), "number": torch.tensor(3.5)}
    path = tmp_path / "a.safetensors"
    save_file(written, path, metadata={"format": "pt"})

    file = examine(path)
    found = read_tensors(file, read_header(file))

    with safe_open(path, "pt") as library:
        assert set(library.keys()) == set(found)
        for name in library.keys():  # noqa: SIM118
            expected = library.get_tensor(name)
            assert expected.dtype == found[name].dtype
            assert expected.shape == found[name].shape
            assert raw(expected) == raw(found[name])


def raw(tensor: torch.Tensor) -> list[int]:
    """The bytes of a tensor."""
    return tensor.reshape(-1).view(torch.uint8).tolist()


def test_weights_load_bit_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().state_dict(), path)

    loaded = read(path, arch=tiny_arch(tmp_path))

    assert same_state(tiny(), loaded.module)
    assert "safetensors" == loaded.target.format


def test_a_flipped_byte_changes_the_digest_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().state_dict(), path)
    arch = tiny_arch(tmp_path)
    digest = read(path, arch=arch).target.sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    assert digest != read(path, arch=arch).target.sha256
    refusal(path, CannotLoad, arch=arch, sha256=digest)


FOUR = b"\0" * 16

BROKEN: dict[str, tuple[Any, bytes, str]] = {
    "trailing bytes": (
        {"a": entry("F32", [4], 0, 16)},
        FOUR + b"xyz",
        "3 trailing bytes behind its tensors",
    ),
    "overlap": (
        {"a": entry("F32", [4], 0, 16), "b": entry("F32", [2], 8, 16)},
        FOUR,
        "b overlaps another tensor",
    ),
    "hole": (
        {"a": entry("F32", [1], 0, 4), "b": entry("F32", [2], 8, 16)},
        FOUR,
        "a hole before b",
    ),
    "wrong shape": (
        {"a": entry("F32", [5], 0, 16)},
        FOUR,
        "a of shape [5] needs 20 bytes, its offsets give 16",
    ),
    "overflow": (
        {"a": entry("F32", [2**62, 8], 0, 16)},
        FOUR,
        "a of shape [4611686018427387904, 8] needs 147573952589676412928 bytes",
    ),
    "huge dimension": (
        {"a": entry("F32", [2**64], 0, 16)},
        FOUR,
        "a has no valid shape",
    ),
    "negative shape": (
        {"a": entry("F32", [-4], 0, 16)},
        FOUR,
        "a has no valid shape",
    ),
    "many dimensions": (
        {"a": entry("F32", [1] * 1000, 0, 16)},
        FOUR,
        "a has no valid shape",
    ),
    "backward offsets": (
        {"a": entry("F32", [4], 16, 0)},
        FOUR,
        "a has no valid offsets",
    ),
    "true as offset": (
        {"a": entry("F32", [4], False, 16)},
        FOUR,
        "a has no valid offsets",
    ),
    "bad dtype": (
        {"a": entry("F31", [4], 0, 16)},
        FOUR,
        "a has the unknown dtype 'F31'",
    ),
    "dtype of another kind": (
        {"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}},
        FOUR,
        "a has the unknown dtype",
    ),
    "duplicate key": (
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        FOUR,
        "duplicate key a",
    ),
    "no object": (b"{]", FOUR, "its header is no JSON"),
    "deep": (b'{"a":' + b"[" * 100_000, FOUR, "its header is no JSON"),
    "no description": ({"a": 3}, FOUR, "a has no description"),
    "metadata": ({"__metadata__": 3}, b"", "its metadata is no object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    header, data, reason = BROKEN[name]
    path = safetensors(tmp_path / "a.safetensors", header, data)

    message, _ = refusal(path, CannotLoad)

    assert f"{path} is no valid safetensors file: " in message
    assert reason in message


def test_a_header_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}" + bytes(100))

    message, _ = refusal(path, CannotLoad)

    assert "its header claims 1099511627776 bytes, the file has 110" in message


@pytest.mark.parametrize("cut", [4, 30, -5])
def test_truncated_safetensors_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().state_dict(), path)
    path.write_bytes(path.read_bytes()[:cut])

    message, _ = refusal(path, CannotLoad)

    assert "truncated" in message or "claims" in message


def test_a_zip_named_safetensors_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", tiny().state_dict())

    loaded = read(path, arch=tiny_arch(tmp_path))

    assert "state_dict" == loaded.target.format


def test_safetensors_by_another_name_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    save_file(tiny().state_dict(), path)

    assert "safetensors" == read(path, arch=tiny_arch(tmp_path)).target.format


@pytest.mark.parametrize("length", [0x0280, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_none(
    tmp_path: Path, length: int
) -> None:
    text = json.dumps({"a": entry("F32", [4], 0, 16)}).encode().ljust(length)
    path = safetensors(tmp_path / "a.bin", text, FOUR)

    assert "safetensors" == inspect(str(path), LoadOptions()).format


def test_hostile_metadata_is_only_text(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().state_dict(), path, metadata={"<script>": "\x1b[2J"})

    assert {"<script>": "\\x1b[2J"} == inspect(str(path), LoadOptions()).metadata


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=8), st.integers(0, 500))
def test_damaged_safetensors_end_in_our_errors(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.safetensors"
    save_file(tiny().state_dict(), path)
    data = path.read_bytes()
    at = place % len(data)
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])

    try:
        load(str(path), LoadOptions())
    except VgauditError:
        return


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """An index over two shards of ``tiny()``."""
    state = tiny().state_dict()
    parts = {"one.safetensors": ["0.weight", "0.bias"]}
    parts["two.safetensors"] = ["2.weight", "2.bias"]
    for name, keys in parts.items():
        save_file({key: state[key] for key in keys}, tmp_path / name)
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    return indexed(tmp_path, weight_map)


def test_shards_of_torch_save_load_and_are_never_trusted(tmp_path: Path) -> None:
    state, arch = tiny().state_dict(), tiny_arch(tmp_path)
    parts = {"a.bin": ["0.weight", "0.bias"], "b.bin": ["2.weight", "2.bias"]}
    for name, keys in parts.items():
        saved(tmp_path / name, {key: state[key] for key in keys})
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    assert same_state(tiny(), read(index, arch=arch).module)
    saved(tmp_path / "b.bin", {**state, "extra": tiny()})
    message, hint = refusal(index, CannotLoad, arch=arch, trust_pickle="yes")
    assert "b.bin refused: needs globals torch.nn.modules.container" in message
    assert "here only plain weights are read: save them as safetensors" == hint


def indexed(folder: Path, weight_map: Any) -> Path:
    """The index with that map."""
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_a_sharded_checkpoint_loads(sharded: Path) -> None:
    arch = tiny_arch(sharded.parent)

    for spec in (sharded, sharded.parent):
        loaded = read(spec, arch=arch)
        assert same_state(tiny(), loaded.module)
        assert "sharded" == loaded.target.format


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../one.safetensors", "is not a plain file name"),
        ("/etc/passwd", "is not a plain file name"),
        ("sub/one.safetensors", "is not a plain file name"),
        ("..\\one.safetensors", "is not a plain file name"),
        ("..", "is not a plain file name"),
        ("", "is not a plain file name"),
        ("three.safetensors", "is missing"),
        ("link.safetensors", "is a link out of its folder"),
    ],
)
def test_shards_outside_the_folder_are_refused(
    sharded: Path, tmp_path: Path, name: str, reason: str
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.safetensors"
    save_file(tiny().state_dict(), outside)
    (tmp_path / "link.safetensors").symlink_to(outside)
    weight_map = json.loads(sharded.read_text())["weight_map"]
    indexed(tmp_path, {**weight_map, "2.weight": name})

    message, _ = refusal(sharded, CannotLoad, arch=tiny_arch(tmp_path))

    assert reason in message


def test_links_of_the_hub_cache_are_followed(sharded: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "repo/blobs", tmp_path / "repo/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate([sharded, *tmp_path.glob("*.safetensors")]):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(blobs / str(number))

    loaded = read(snapshot / sharded.name, arch=tiny_arch(tmp_path))

    assert same_state(tiny(), loaded.module)


def test_a_shard_that_lacks_a_tensor_is_named(sharded: Path) -> None:
    weight_map = json.loads(sharded.read_text())["weight_map"]
    indexed(sharded.parent, {**weight_map, "4.weight": "one.safetensors"})

    message, _ = refusal(sharded, CannotLoad, arch=tiny_arch(sharded.parent))

    assert "one.safetensors lacks 4.weight, which its index promises" in message


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 10**5],
)
def test_broken_indices_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text or " ")

    refusal(path, CannotLoad)


def test_a_pipe_as_shard_is_refused(sharded: Path, tmp_path: Path) -> None:
    import os

    (tmp_path / "two.safetensors").unlink()
    os.mkfifo(tmp_path / "two.safetensors")

    message, _ = refusal(sharded, CannotLoad, arch=tiny_arch(tmp_path))

    assert "is a named pipe, not a regular file" in message


def test_tensors_do_not_share_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny().state_dict(), path)
    module = read(path, arch=tiny_arch(tmp_path)).module
    before = path.read_bytes()

    with torch.no_grad():
        module[0].weight.zero_()

    assert path.read_bytes() == before
    assert identical(tiny()[2].weight.detach(), module[2].weight.detach())
