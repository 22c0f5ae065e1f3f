"""Reads safetensors: a header of JSON, then the bytes of the tensors.

The format is simple enough to read directly, with every check of the
specification and a reason for each, without mapping the file into memory:
a mapped file that is cut off later kills the process.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vgaudit.errors import CannotLoad
from vgaudit.loading.local_file import LocalFile
from vgaudit.loading.wording import shorten

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000
MAX_DIMS = 64
METADATA = "__metadata__"
SUFFIX = ".safetensors"

DTYPES: dict[str, torch.dtype] = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16},
    **{"BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32},
    **{"I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64},
    **{"BOOL": torch.bool, "C64": torch.complex64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor lies in the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says about itself, checked.

    Attributes:
        slots: in the order of the data.
        metadata: free texts.
        start: where the data begins.
    """

    slots: tuple[Slot, ...]
    metadata: dict[str, str]
    start: int


def looks_like(head: bytes, suffix: str) -> bool:
    """Returns whether a file is safetensors by its beginning or by its name.

    A zip archive that is named so by mistake is not.
    """
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER:
        return True
    return suffix == SUFFIX and not head.startswith((b"PK\x03\x04", b"\x80\x02"))


def read_header(file: LocalFile) -> Header:
    """Returns the header of a safetensors file.

    Raises:
        CannotLoad: which rule of the format the file breaks.
    """
    length = int.from_bytes(file.head[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    if file.size < LENGTH_BYTES or start > file.size or length > MAX_HEADER:
        raise broken(
            file, f"its header claims {length} bytes, the file has {file.size}"
        )
    with file.open() as stream:
        stream.seek(LENGTH_BYTES)
        text = stream.read(length)
    entries = parse(file, text)
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict):
        raise broken(file, "its metadata is no object")
    slots = [slot(file, name, entry) for name, entry in entries.items()]
    slots.sort(key=lambda slot: (slot.begin, slot.end))
    check_layout(file, slots, file.size - start)
    texts = {str(key): str(value) for key, value in metadata.items()}
    return Header(tuple(slots), texts, start)


def parse(file: LocalFile, text: bytes) -> dict[str, Any]:
    """Returns the header's JSON object.

    Raises:
        CannotLoad: no JSON object, or a name in it twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            double = next(name for name in entries if names.count(name) > 1)
            raise broken(file, f"duplicate key {shorten(double)}")
        return entries

    try:
        entries = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise broken(file, "its header is no JSON") from error
    if not isinstance(entries, dict):
        raise broken(file, "its header is no JSON object")
    return entries


def slot(file: LocalFile, name: str, entry: Any) -> Slot:
    """Returns where a tensor lies, from its entry of the header.

    Raises:
        CannotLoad: a bad type, shape or offset.
    """
    shown = shorten(name)
    if not isinstance(entry, dict):
        raise broken(file, f"{shown} has no description")
    kind = entry.get("dtype")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise broken(file, f"{shown} has the unknown dtype {str(kind)[:40]!r}")
    dtype = DTYPES[kind]
    shape = counts(entry.get("shape"))
    if shape is None:
        raise broken(file, f"{shown} has no valid shape")
    offsets = counts(entry.get("data_offsets"))
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise broken(file, f"{shown} has no valid offsets")
    needed = math.prod(shape) * dtype.itemsize
    if needed != offsets[1] - offsets[0]:
        raise broken(
            file,
            f"{shown} of shape {list(shape)[:8]} needs {needed} bytes, "
            f"its offsets give {offsets[1] - offsets[0]}",
        )
    return Slot(name, dtype, shape, offsets[0], offsets[1])


def counts(value: Any) -> tuple[int, ...] | None:
    """Returns a list of at most 64 integers from 0 to 2⁶³ − 1, or None."""
    if not isinstance(value, list) or len(value) > MAX_DIMS:
        return None
    if not all(type(n) is int and 0 <= n < 2**63 for n in value):
        return None
    return tuple(value)


def check_layout(file: LocalFile, slots: list[Slot], data: int) -> None:
    """Refuses data that overlaps, has holes, or does not end with the file.

    Raises:
        CannotLoad: which.
    """
    position = 0
    for slot in slots:
        if slot.begin < position:
            raise broken(file, f"{shorten(slot.name)} overlaps another tensor")
        if slot.begin > position:
            raise broken(file, f"a hole before {shorten(slot.name)}")
        position = slot.end
    if position > data:
        raise file.damaged(f"truncated: its tensors need {position} bytes, not {data}")
    if position < data:
        raise broken(file, f"{data - position} trailing bytes behind its tensors")


def broken(file: LocalFile, reason: str) -> CannotLoad:
    """Returns the error for a file that breaks the format."""
    return CannotLoad(
        f"{file.path} is no valid safetensors file: {reason}",
        hint="the file is damaged or hostile: get it again from its author",
    )


def read_tensors(file: LocalFile, header: Header) -> dict[str, Tensor]:
    """Returns the tensors, each in memory of its own."""
    with file.open() as stream:
        return dict(tensors(file, header, stream))


def tensors(
    file: LocalFile, header: Header, stream: BinaryIO
) -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor in the order of the data."""
    stream.seek(header.start)
    for slot in header.slots:
        size = slot.end - slot.begin
        if size == 0:
            yield slot.name, torch.empty(slot.shape, dtype=slot.dtype)
            continue
        try:
            raw = torch.empty(size, dtype=torch.uint8)
        except RuntimeError as error:
            raise CannotLoad(f"{file.path} does not fit into memory") from error
        if stream.readinto(raw.numpy()) != size:  # type: ignore[attr-defined]
            raise file.damaged("it became shorter while it was read")
        yield slot.name, raw.view(slot.dtype).reshape(slot.shape)
