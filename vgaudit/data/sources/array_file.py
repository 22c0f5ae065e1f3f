"""``.npy`` and ``.npz`` files, checked before anything is allocated."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vgaudit.data.sources.content import Content, Source
from vgaudit.data.sources.local import reading_archive, regular_file
from vgaudit.data.sources.npy_header import NpyHeader, read_header
from vgaudit.data.sources.rows import content_from_arrays
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

_MAX_RATIO = 100
"""Deflate reaches a thousand, on zeros; real data stays far below this."""

_ALWAYS_FINE = 64 * 2**20
"""Bytes of an array that may be compressed by any ratio."""

_ENCRYPTED = 0x1

Array = npt.NDArray[np.generic]


def open_array(spec: str, seed: int) -> Content:
    """Returns the arrays of an ``.npy`` or ``.npz`` file.

    Raises:
        CannotLoad: the file is refused or damaged, or its arrays do not fit
            together.
    """
    path = regular_file(spec)
    name = visible(path.name)
    if path.suffix.lower() == ".npy":
        return content_from_arrays({"x": _npy(path, name)}, name)
    with reading_archive(name), zipfile.ZipFile(path) as archive:
        arrays = {
            visible(info.filename.removesuffix(".npy")): _member(archive, info, name)
            for info in archive.infolist()
            if not info.is_dir()
        }
    return content_from_arrays(arrays, name)


def _npy(path: Path, name: str) -> Array:
    """Returns the array, mapped: only the rows that are used are read."""
    with path.open("rb") as stream:
        header = read_header(stream, name)
    _check_size(header, path.stat().st_size - header.offset, name)
    if header.nbytes == 0:
        return np.zeros(header.shape, header.dtype)
    mapped: Array = np.memmap(
        path,
        dtype=header.dtype,
        mode="r",
        offset=header.offset,
        shape=header.shape,
        order="F" if header.fortran else "C",
    )
    return mapped


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, archive_name: str
) -> Array:
    name = f"{archive_name}[{visible(info.filename)}]"
    if info.flag_bits & _ENCRYPTED:
        raise CannotLoad(f"{name} is encrypted", hint="save it without a password")
    ratio = info.file_size / max(info.compress_size, 1)
    if ratio > _MAX_RATIO and info.file_size > _ALWAYS_FINE:
        raise CannotLoad(
            f"{name} would grow {ratio:,.0f} times to {info.file_size:,} bytes",
            hint="if you trust it, save it uncompressed with np.savez",
        )
    with archive.open(info) as stream:
        header = read_header(stream, name)
        _check_size(header, info.file_size - header.offset, name)
        numbers = stream.read(header.nbytes)
        stream.read()  # to the end: this is where zipfile compares the checksum
    if len(numbers) < header.nbytes:
        raise CannotLoad(f"{name} is truncated: {len(numbers):,} bytes of numbers")
    flat = np.frombuffer(numbers, header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _check_size(header: NpyHeader, available: int, name: str) -> None:
    if header.nbytes > available:
        shape = "x".join(str(extent) for extent in header.shape)
        raise CannotLoad(
            f"{name} claims {header.nbytes:,} bytes ({header.dtype} {shape}) and has "
            f"{max(available, 0):,}",
            hint="the file is truncated or forged: copy or save it again",
        )


SOURCE = Source(
    "FILE.npz", lambda spec: spec.lower().endswith((".npy", ".npz")), open_array
)
