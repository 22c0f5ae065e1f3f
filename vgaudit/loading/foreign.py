"""Files that are no PyTorch weights, told by their first bytes and named."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.errors import CannotLoad
from vgaudit.loading.local_file import LocalFile

AGAIN = "the download failed or needs a login: download it again"
EXPORTED = (
    "it holds an exported graph without trainable modules: scan the PyTorch "
    "model it was made from, by a factory or by its state_dict with --arch"
)
UNPACK = "unpack it first"
CONVERT = "convert it to a PyTorch state_dict first, then give --arch"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A format that is recognised and not read: its name, and the way out."""

    name: str
    kind: str
    hint: str


HTML = Foreign("html", "an HTML page: download failed?", AGAIN)
LFS = Foreign("git-lfs", "a git-lfs pointer, not the file", "run git lfs pull")
GZIP = Foreign("gzip", "a gzip archive", "decompress it first: gunzip FILE")
ONNX = Foreign("onnx", "an ONNX model", EXPORTED)
TFLITE = Foreign("tflite", "a TensorFlow Lite model", EXPORTED)
LIBRARY = Foreign("library", "a compiled library", EXPORTED)
ARRAY = Foreign("numpy", "a NumPy array, not a model", "give it as --data")
PDF = Foreign("pdf", "a PDF document", AGAIN)
IMAGE = Foreign("image", "a picture, not a model", "give it as --data imagefolder:DIR")
JSON = Foreign(
    "json",
    "a JSON text, not a model",
    "give the directory it belongs to, or the weights file beside it",
)
TEXT = Foreign(
    "text",
    "a text, not a PyTorch file",
    "for Python code name the factory: file.py:factory",
)

MAGIC: tuple[tuple[bytes, Foreign], ...] = (
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"GGUF", Foreign("gguf", "a GGUF model", CONVERT)),
    (b"\x89HDF\r\n\x1a\n", Foreign("keras", "an HDF5 file (Keras?)", CONVERT)),
    (b"7z\xbc\xaf\x27\x1c", Foreign("7z", "a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", Foreign("rar", "a RAR archive", UNPACK)),
    (b"\x1f\x8b", GZIP),
    (b"BZh", Foreign("bzip2", "a bzip2 archive", "decompress it first")),
    (b"\xfd7zXZ\x00", Foreign("xz", "an xz archive", "decompress it first")),
    (b"\x28\xb5\x2f\xfd", Foreign("zstd", "a zstd archive", "decompress it first")),
    (b"\x7fELF", LIBRARY),
    (b"MZ", LIBRARY),
    (b"\xcf\xfa\xed\xfe", LIBRARY),
    (b"\x93NUMPY", ARRAY),
    (b"%PDF-", PDF),
    (b"\x89PNG\r\n", IMAGE),
    (b"\xff\xd8\xff", IMAGE),
)


def recognise(head: bytes) -> Foreign | None:
    """Returns the foreign format that a file's first bytes belong to."""
    for magic, foreign in MAGIC:
        if head.startswith(magic):
            return foreign
    if head[4:8] == b"TFL3":
        return TFLITE
    if is_onnx(head):
        return ONNX
    if head[257:262] == b"ustar":
        return Foreign("tar", "a tar archive", legacy_tar(head))
    return written(head)


def is_onnx(head: bytes) -> bool:
    """Returns whether the bytes begin an ONNX ``ModelProto``.

    Field 1 is the IR version, a small number; field 2 the producer's name, a
    string; exporters that name no producer go on with field 7, the graph.
    Source: onnx.proto.
    """
    if len(head) < 4 or head[0] != 0x08 or not 1 <= head[1] <= 32:
        return False
    if head[2] == 0x12:
        producer = head[4 : 4 + head[3]]
        return len(producer) == head[3] and all(32 <= byte < 127 for byte in producer)
    return head[2] == 0x3A


def legacy_tar(head: bytes) -> str:
    """Returns the way out for a tar archive, by the names of its first members."""
    names = {head[at : at + 100].rstrip(b"\x00") for at in range(0, len(head), 512)}
    if names & {b"storages", b"tensors", b"pickle", b"sys_info"}:
        return (
            "PyTorch wrote this format before 2017 and cannot read it safely: "
            "load it with an old PyTorch and save its state_dict again"
        )
    return UNPACK


def written(head: bytes) -> Foreign | None:
    """Returns the format of a text, or None for binary data."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return HTML
    # 0x80 begins a pickle; a text may be cut in the middle of a character.
    if b"\x00" in head or head[:1] == b"\x80":
        return None
    try:
        decoded = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        decoded = head[: error.start].decode("utf-8")
    if not all(c.isprintable() or c in "\t\r\n\f" for c in decoded):
        return None
    return JSON if text.startswith((b"{", b"[")) else TEXT


def refuse_foreign(file: LocalFile) -> None:
    """Raises for a file of a format that vgaudit names and does not read.

    Raises:
        CannotLoad: names the format and says what to do.
    """
    foreign = recognise(file.head)
    if foreign is not None:
        raise CannotLoad(f"{file.path} is {foreign.kind}", hint=foreign.hint)
