"""Files that are no model: named, and never read further (rows 1-9, 17, 39, 83)."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.loading.builders import read, refusal, saved, tiny, write_records
from vgaudit.errors import BadConfig, CannotLoad, UnknownSource


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    saved(tmp_path / "resnet.pt", tiny())

    message, hint = refusal(tmp_path / "resnt.pt", CannotLoad)

    assert f"no such file: {tmp_path / 'resnt.pt'}" == message
    assert f"did you mean {tmp_path / 'resnet.pt'}?" == hint


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    _, hint = refusal(tmp_path / "gone" / "resnet.pt", CannotLoad)

    assert f"the directory {tmp_path / 'gone'} does not exist either" == hint


def test_a_dangling_link_says_where_it_led(tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to(tmp_path / "moved.pt")

    message, _ = refusal(tmp_path / "model.pt", CannotLoad)

    assert message.endswith(f"is a link to {tmp_path / 'moved.pt'}, where nothing is")


def test_a_directory_without_a_model_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")

    message, _ = refusal(tmp_path, CannotLoad)

    assert "looked for config.json, model.safetensors" in message
    assert "pytorch_model.bin" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "secret.pt", tiny())
    path.chmod(0)

    message, hint = refusal(path, CannotLoad)

    assert f"cannot read {path}: Permission denied" == message
    assert "chmod u+r" in hint


def test_permission_denied_is_told_without_depending_on_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "secret.pt", tiny())

    def deny(*args: object, **kwargs: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", deny)
    message, hint = refusal(path, CannotLoad)

    assert f"cannot read {path}: Permission denied" == message
    assert f"no permission to read it: chmod u+r {path}" == hint


def test_a_pipe_is_refused_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.pt"
    os.mkfifo(path)

    message, _ = refusal(path, CannotLoad)

    assert f"{path} is a named pipe, not a regular file" == message


def test_a_device_is_refused() -> None:
    message, _ = refusal("/dev/zero", CannotLoad)

    assert "/dev/zero is a character device, not a regular file" == message


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()

    message, _ = refusal(tmp_path / "model.pt", CannotLoad)

    assert f"{tmp_path / 'model.pt'} is an empty file" == message


FOREIGN = {
    "text": (b"import torch\nprint('hi')\n", "a text, not a PyTorch file"),
    "html": (b"<!DOCTYPE html><html>404</html>", "an HTML page: download failed?"),
    "html-space": (b"\n\n <HTML><body>", "an HTML page: download failed?"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "a git-lfs pointer, not the file",
    ),
    "json": (b'{"weights": [1, 2]}', "a JSON text, not a model"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "a gzip archive"),
    "onnx": (b"\x08\x09\x12\x07pytorch\x1a\x032.1:\x80\x01", "an ONNX model"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF model"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file (Keras?)"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "a TensorFlow Lite model"),
    "so": (b"\x7fELF\x02\x01\x01" + bytes(64), "a compiled library"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(64), "a NumPy array, not a model"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_foreign_formats_are_named_whatever_the_file_is_called(
    tmp_path: Path, name: str, suffix: str
) -> None:
    data, kind = FOREIGN[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data)

    message, hint = refusal(path, CannotLoad)

    assert f"{path} is {kind}" == message
    assert hint


def test_a_legacy_tar_is_refused_with_its_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    (tmp_path / "storages").write_bytes(b"x" * 10)
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "storages", "storages")

    message, hint = refusal(path, CannotLoad)

    assert f"{path} is a tar archive" == message
    assert "save its state_dict again" in hint


def test_random_bytes_are_no_pytorch_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    path = tmp_path / "model.pt"
    path.write_bytes(
        b"\xfe"
        + bytes(torch.randint(256, (5000,), generator=generator).to(torch.uint8))
    )

    message, _ = refusal(path, CannotLoad)

    assert message.endswith("is not a PyTorch file: neither a zip archive nor a pickle")


@pytest.mark.parametrize("cut", [0.5, 0.97, -1])
def test_a_truncated_file_tells_its_size(tmp_path: Path, cut: float) -> None:
    path = saved(tmp_path / "model.pt", tiny().state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if cut > 0 else -1])

    message, hint = refusal(path, CannotLoad)

    assert message.startswith(
        f"{path} is truncated or corrupt; {path.stat().st_size} bytes"
    )
    assert "copy or download it again" == hint


def test_a_zip_inside_a_zip_is_named(tmp_path: Path) -> None:
    inner = saved(tmp_path / "inner.pt", tiny())
    path = write_records(tmp_path / "outer.pt", {"inner.pt": inner.read_bytes()})

    message, hint = refusal(path, CannotLoad)

    assert f"{path} is a zip archive that holds inner.pt" in message
    assert "unpack it and give the model inside" == hint


def test_an_encrypted_zip_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", tiny())
    data = bytearray(path.read_bytes())
    start = data.find(b"PK\x01\x02")
    while start >= 0:  # the flag bit of every entry of the directory
        data[start + 8] |= 1
        start = data.find(b"PK\x01\x02", start + 1)
    path.write_bytes(data)

    message, hint = refusal(path, CannotLoad)

    assert f"{path} is an encrypted zip archive" == message
    assert "decrypt it first" == hint


def test_torchscript_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.script(tiny()).save(str(path))

    message, hint = refusal(path, CannotLoad)

    assert f"{path} is TorchScript, which is compiled code (tier T2, sha256 " in message
    assert "pass the eager model by a factory" in hint


def test_an_exported_program_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    program = torch.export.export(tiny(), (torch.zeros(2, 4),))
    torch.export.save(program, path)
    monkeypatch.setattr(torch.export, "load", lambda *a: pytest.fail("opened"))

    message, hint = refusal(path, CannotLoad)

    assert "is a torch.export program, which is code (tier T2, sha256 " in message
    assert "pass the eager model by a factory" in hint


@pytest.mark.parametrize("version", ["2.9.1", "2.9.1+cu128", "1.13.0"])
def test_an_old_torch_reads_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    path = saved(tmp_path / "model.pt", tiny())
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("opened"))

    message, hint = refusal(path, BadConfig)

    assert f"torch {version} is too old to read model files safely" == message
    assert "CVE-2025-32434" in hint


@pytest.mark.parametrize("version", ["2.10.0", "2.15.0+cpu", "3.0.0"])
def test_a_newer_torch_reads_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    path = saved(tmp_path / "model.pt", tiny())
    monkeypatch.setattr(torch, "__version__", version)

    assert isinstance(read(path).module, nn.Sequential)


def test_a_pinned_digest_is_compared(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", tiny())
    digest = read(path).target.sha256

    assert digest == read(path, sha256=f"sha256:{digest}").target.sha256
    message, _ = refusal(path, CannotLoad, sha256="0" * 64)
    assert f"{path} is not the file expected: its sha256 is {digest}" == message
    refusal(path, BadConfig, sha256="abc")


def test_an_unknown_word_is_no_source() -> None:
    message, hint = refusal("resnet18", UnknownSource)

    assert "no loader understands 'resnet18'" == message
    assert "torchvision:NAME" in hint


@pytest.mark.parametrize("spec", ["", "  "])
def test_an_empty_specification_is_a_usage_error(spec: str) -> None:
    refusal(spec, BadConfig)


def test_a_file_name_with_a_hash_is_a_file_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "run#3.pt", tiny())

    assert str(path) == read(path).target.spec
