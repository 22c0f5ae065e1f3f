"""A ``torch.export`` archive (``.pt2``), checked before torch's loader sees it.

That loader unpickles some records and evaluates strings: shape expressions, guards,
names of classes to import. Here the archive is read as plain JSON and bytes first.
What could run is refused; what is only description is left out of the copy that the
loader gets.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vgaudit.errors import CannotLoad
from vgaudit.loading.archive import check_members
from vgaudit.loading.exported.graph import clean_program
from vgaudit.loading.exported.shapes import LARGEST, Refused
from vgaudit.loading.local_file import LocalFile
from vgaudit.loading.wording import shorten

MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
CONFIGS = (
    ("data/weights/", "data/weights/model_weights_config.json"),
    ("data/constants/", "data/constants/model_constants_config.json"),
)
DESCRIPTION = ("archive_format", "archive_version", "byteorder")
KEPT = (".data/version", ".data/serialization_id")
PAYLOAD = re.compile(r"(weight|tensor)_\d+")
MOST_JSON = 256 * 2**20

HINT = (
    "pass the eager model by a factory, file.py:factory, or save its state_dict and "
    "give --arch"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An archive that holds nothing but an aten graph and numbers.

    Attributes:
        archive: a copy for torch's loader, without what it would evaluate.
        samples: the record of sample inputs, not yet opened.
        eval_mode: batch norm or dropout was exported switched to evaluation.
        dropped: what the copy leaves out.
    """

    archive: bytes
    samples: bytes
    eval_mode: bool
    dropped: tuple[str, ...]


def check(file: LocalFile) -> Checked:
    """Returns a copy of an archive in which nothing can run.

    The members' sizes, compression and checksums are known to be sound.

    Raises:
        CannotLoad: it holds a part that could run, or no program.
    """
    try:
        with file.open() as stream, zipfile.ZipFile(stream) as archive:
            return _checked(file, archive)
    except Refused as error:
        raise CannotLoad(
            f"{file.path} refused: {error} (tier T2, sha256 {file.sha256})", hint=HINT
        ) from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise file.damaged(f"no program of torch.export: {error!r}") from error


def _checked(file: LocalFile, archive: zipfile.ZipFile) -> Checked:
    names = archive.namelist()
    root = _root(names)
    present = {name.removeprefix(root) for name in names if name.startswith(root)}
    _refuse_code(present)
    program = _json(archive, root, MODEL)
    kept = {
        name: archive.read(root + name)
        for name in (*DESCRIPTION, *KEPT)
        if name in present
    }
    for folder, config in CONFIGS:
        entries = _json(archive, root, config)
        for payload in _payloads(entries, folder):
            if payload in present:
                kept[payload] = archive.read(root + payload)
        _check_sizes(entries, kept, folder)
        kept[config] = json.dumps(entries).encode()
    eval_mode = clean_program(program)
    kept[MODEL] = json.dumps(program).encode()
    samples = archive.read(root + SAMPLES)
    _check_nested(file, samples)
    kept[SAMPLES] = samples
    return Checked(
        archive=_zipped(kept),
        samples=samples,
        eval_mode=eval_mode,
        dropped=tuple(sorted(shorten(name) for name in present - set(kept)))[:5],
    )


def _root(names: list[str]) -> str:
    roots = [n.removesuffix(MODEL) for n in names if n.endswith(MODEL)]
    if len(roots) != 1:
        raise Refused(f"it holds {len(roots)} programs named model, where 1 is read")
    return roots[0]


def _refuse_code(present: set[str]) -> None:
    for name in sorted(present):
        last = name.rpartition("/")[2]
        if name.startswith("data/aotinductor/"):
            raise Refused(f"compiled code in {shorten(name)}")
        if last.startswith(("custom_obj_", "opaque_obj_")):
            raise Refused(f"a pickled object in {shorten(name)}")
        if name in ("data/weights/model.pt", "data/constants/model.pt"):
            raise Refused(f"pickled tensors in {name}")
        if name.startswith("models/") and name != MODEL:
            raise Refused(f"a second program in {shorten(name)}")


def _json(archive: zipfile.ZipFile, root: str, name: str) -> Any:
    if archive.getinfo(root + name).file_size > MOST_JSON:
        raise Refused(f"{name} is larger than {MOST_JSON >> 20} MiB")
    try:
        return json.loads(archive.read(root + name))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is no JSON") from error


def _payloads(config: Any, folder: str) -> Iterator[str]:
    """Yields the records that a list of tensors names, all of them plain bytes."""
    for name, entry in config["config"].items():
        path = entry["path_name"]
        if entry["use_pickle"] is not False:
            raise Refused(f"the tensor {shorten(name)} is pickled (use_pickle)")
        if not isinstance(path, str) or not PAYLOAD.fullmatch(path):
            raise Refused(f"the tensor {shorten(name)} is in {shorten(str(path))}")
        yield folder + path


def _check_sizes(config: Any, kept: dict[str, bytes], folder: str) -> None:
    """Refuses a tensor that reaches beyond its record, before it is allocated."""
    for name, entry in config["config"].items():
        meta = entry["tensor_meta"]
        sizes, strides, (offset,) = (
            [_whole(value) for value in values]
            for values in (meta["sizes"], meta["strides"], [meta["storage_offset"]])
        )
        meta["device"] = {"type": "cpu", "index": None}
        if len(sizes) != len(strides):
            raise Refused(f"the tensor {shorten(name)} has {len(strides)} strides")
        steps = zip(sizes, strides, strict=True)
        last = offset + sum((size - 1) * stride for size, stride in steps)
        needed = last + 1 if math.prod(sizes) else 0
        held = len(kept.get(folder + entry["path_name"], b""))
        if needed > held or math.prod(sizes) > max(needed, 1) * 64:
            raise Refused(
                f"the tensor {shorten(name)} of {needed} elements reaches beyond its "
                f"record of {held} bytes"
            )


def _whole(value: Any) -> int:
    number = value.get("as_int") if isinstance(value, dict) else None
    if type(number) is not int or not 0 <= number < LARGEST:
        raise Refused(f"a tensor's size is {shorten(str(value))}")
    return number


def _check_nested(file: LocalFile, samples: bytes) -> None:
    """Refuses sample inputs in an archive that grows or overlaps."""
    try:
        with zipfile.ZipFile(io.BytesIO(samples)) as nested:
            check_members(file, nested.infolist())
    except zipfile.BadZipFile as error:
        raise Refused("its sample inputs are no archive of torch.save") from error


def _zipped(records: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()
