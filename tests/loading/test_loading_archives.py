"""Archives that are damaged or hostile (rows 10, 12-19)."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tests.loading.builders import (
    edited,
    legacy,
    read,
    records,
    refusal,
    same_state,
    saved,
    tiny,
    tiny_arch,
    write_records,
)
from vgaudit.errors import CannotLoad


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.pt", tiny().state_dict())


def test_a_flipped_byte_of_tensor_data_is_found(state_file: Path) -> None:
    data = bytearray(state_file.read_bytes())
    payload = records(state_file)["model/data/0"]
    data[data.find(payload) + 5] ^= 0x10
    state_file.write_bytes(data)

    message, hint = refusal(state_file, CannotLoad)

    assert (
        f"{state_file}: CRC mismatch in record data/0: the file is corrupt" == message
    )
    assert "copy or download it again" == hint


def test_a_missing_record_is_named(state_file: Path) -> None:
    edited(state_file, lambda members: members.pop("model/data/2"))

    message, _ = refusal(state_file, CannotLoad)

    assert "record data/2 is missing" in message


def test_a_short_record_is_named(state_file: Path) -> None:
    edited(state_file, lambda m: m.update({"model/data/0": b"\0" * 8}))

    message, _ = refusal(state_file, CannotLoad)

    assert "record data/0 has 8 bytes, its tensor needs 48" in message


def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    # 64 MiB of zeros in 64 KiB.
    path = saved(tmp_path / "model.pt", {"w": torch.zeros(2**24)})
    write_records(path, records(path), zipfile.ZIP_DEFLATED)

    message, _ = refusal(path, CannotLoad)

    assert "compressed record model/data/0 grows from" in message
    assert message.endswith("67108864 bytes: not written by torch.save")


def test_an_honest_compressed_archive_loads(state_file: Path, tmp_path: Path) -> None:
    write_records(state_file, records(state_file), zipfile.ZIP_DEFLATED)

    loaded = read(state_file, arch=tiny_arch(tmp_path))

    assert same_state(tiny(), loaded.module)


@pytest.mark.parametrize("name", ["../../escaped", "model/../../../escaped"])
def test_a_member_that_points_outside_is_a_note(
    state_file: Path, tmp_path: Path, name: str
) -> None:
    edited(state_file, lambda members: members.update({name: b"x"}))

    loaded = read(state_file, arch=tiny_arch(tmp_path))

    assert (
        f"suspicious member {name}; nothing is extracted",
    ) == loaded.target.archive_notes
    assert not list(tmp_path.parent.rglob("escaped"))
    assert same_state(tiny(), loaded.module)


def test_a_wrong_byte_order_is_named(state_file: Path) -> None:
    edited(state_file, lambda m: m.update({"model/byteorder": b"middle"}))

    message, _ = refusal(state_file, CannotLoad)

    assert "byte order b'middle' is neither little nor big" in message


def test_a_big_endian_file_loads(state_file: Path, tmp_path: Path) -> None:
    def swap(members: dict[str, bytes]) -> None:
        members["model/byteorder"] = b"big"
        for name, data in members.items():
            if name.startswith("model/data/"):
                members[name] = (
                    torch.frombuffer(bytearray(data), dtype=torch.uint8)
                    .view(-1, 4)
                    .flip(1)
                    .numpy()
                    .tobytes()
                )

    edited(state_file, swap)

    assert same_state(tiny(), read(state_file, arch=tiny_arch(tmp_path)).module)


def test_two_records_of_one_name_are_refused(state_file: Path) -> None:
    members = records(state_file)
    with zipfile.ZipFile(state_file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("model/data/0", bytes(48))

    message, _ = refusal(state_file, CannotLoad)

    assert f"{state_file}: 2 records are named model/data/0" == message


def test_an_archive_without_checksums_loads_with_a_note(
    state_file: Path, tmp_path: Path
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved(state_file, tiny().state_dict())
    finally:
        torch.serialization.set_crc32_options(True)

    loaded = read(state_file, arch=tiny_arch(tmp_path))

    assert "written without checksums" in loaded.target.archive_notes[0]
    assert same_state(tiny(), loaded.module)


def test_a_legacy_file_loads_with_a_note(tmp_path: Path) -> None:
    path = legacy(tmp_path / "model.pt", tiny().state_dict())

    loaded = read(path, arch=tiny_arch(tmp_path))

    assert same_state(tiny(), loaded.module)
    assert "legacy format (before PyTorch 1.6), without checksums" in (
        loaded.target.notes
    )


def test_a_legacy_module_is_refused_with_the_reason(tmp_path: Path) -> None:
    # Its pickle carries the source text of each class, which no safe reader takes.
    path = legacy(tmp_path / "model.pt", tiny())

    message, _ = refusal(path, CannotLoad)

    assert "a whole module in the legacy format, with its source code" in message
    assert same_state(tiny(), read(path, trust_pickle="yes").module)


def test_a_truncated_legacy_file_is_refused(tmp_path: Path) -> None:
    path = legacy(tmp_path / "model.pt", tiny().state_dict())
    path.write_bytes(path.read_bytes()[:-10])

    message, _ = refusal(path, CannotLoad)

    assert f"{path} is truncated or corrupt; {path.stat().st_size} bytes" in message


def test_a_legacy_file_that_lists_too_few_storages_is_refused(tmp_path: Path) -> None:
    # torch itself loads it, and leaves uninitialised memory in the tensor.
    path = legacy(tmp_path / "model.pt", {"w": torch.arange(64.0)})
    data = path.read_bytes()
    keys = data.rindex(b"\x80\x02]")  # the last pickle is the list of storages
    path.write_bytes(data[:keys] + pickle.dumps([], 2))
    assert torch.load(path, weights_only=True)["w"].shape == (64,)

    message, _ = refusal(path, CannotLoad)

    assert "its list of storages does not fit its tensors" in message
