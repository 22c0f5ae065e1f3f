"""``.safetensors`` and ``.pt`` files of tensors; no pickle is executed."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgaudit.data.sources.content import Content, Source
from vgaudit.data.sources.local import reading_archive, regular_file
from vgaudit.data.sources.rows import content_from_arrays
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

_SUFFIXES = (".safetensors", ".pt", ".pth")
_MAX_RATIO = 4
"""``torch.save`` never compresses; an honest archive that was zipped again may."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def open_tensors(spec: str, seed: int) -> Content:
    """Returns the tensors of a file as samples.

    Raises:
        CannotLoad: the file is refused or damaged, or holds something else than
            a tensor, a pair of tensors or a dict of tensors.
    """
    path = regular_file(spec)
    name = visible(path.name)
    read = _safetensors if path.suffix.lower() == ".safetensors" else _torch_file
    value = read(path, name)
    if isinstance(value, Tensor):
        value = {"x": value}
    elif isinstance(value, (tuple, list)) and _is_pair(value):
        value = {"x": value[0], "y": value[1]}
    if not isinstance(value, Mapping) or not value:
        raise _not_tensors(name, value)
    for key, tensor in value.items():
        if not isinstance(tensor, Tensor):
            raise _not_tensors(f"{name}[{visible(str(key))}]", tensor)
        _check(tensor, f"{name}[{visible(str(key))}]")
    arrays = {visible(str(key)): tensor for key, tensor in value.items()}
    return content_from_arrays(arrays, name)


def _is_pair(value: Any) -> bool:
    return len(value) == 2 and all(isinstance(item, Tensor) for item in value)


def _not_tensors(name: str, value: Any) -> CannotLoad:
    return CannotLoad(
        f"{name} is of type {type(value).__name__}, not a tensor",
        hint='save tensors: torch.save({"x": inputs, "y": labels}, FILE)',
    )


def _safetensors(path: Path, name: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CannotLoad(f"{name} is damaged: {visible(str(error))}") from None


def _torch_file(path: Path, name: str) -> Any:
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            _check_archive(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and sparse scans
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise CannotLoad(f"{name} does not fit into memory") from None
    except Exception as error:  # a damaged pickle raises anything
        raise CannotLoad(_reason(name, error), hint=_hint(error)) from None


def _reason(name: str, error: Exception) -> str:
    """Returns why a file was refused, without torch's advice to unpickle it."""
    needed = _GLOBAL.search(str(error))
    if needed:
        return f"{name} is refused: it needs the Python object {visible(needed[1])}"
    return f"{name} is not a file of tensors, or it is damaged"


def _hint(error: Exception) -> str:
    if _GLOBAL.search(str(error)):
        return "save plain tensors, or give a factory: file.py:factory"
    return 'save tensors: torch.save({"x": inputs, "y": labels}, FILE)'


def _check_archive(path: Path, name: str) -> None:
    """Refuses bombs before anything is unpacked, and damage that torch overlooks."""
    with reading_archive(name), zipfile.ZipFile(path) as archive:
        claimed = sum(info.file_size for info in archive.infolist())
        if claimed > _MAX_RATIO * path.stat().st_size:
            raise CannotLoad(
                f"{name} would grow to {claimed:,} bytes: not written by torch.save"
            )
        damaged = archive.testzip()
    if damaged is not None:
        raise CannotLoad(
            f"{name} is damaged: checksum mismatch in {visible(damaged)}",
            hint="copy or download it again",
        )


def _check(tensor: Tensor, name: str) -> None:
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
        raise CannotLoad(
            f"{name} is not a plain tensor (meta, sparse or quantized)",
            hint="save it dense and on the CPU",
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CannotLoad(f"{name} has more elements than its file holds numbers")


SOURCE = Source(
    "FILE.safetensors", lambda spec: spec.lower().endswith(_SUFFIXES), open_tensors
)
