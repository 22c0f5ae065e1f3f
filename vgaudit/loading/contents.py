"""What a file of weights or a pickled module holds, whichever its format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading import safetensors_file
from vgaudit.loading.foreign import refuse_foreign
from vgaudit.loading.loaded import Origin
from vgaudit.loading.local_file import LocalFile, examine, regular_size
from vgaudit.loading.survey import survey
from vgaudit.loading.torch_file import open_file
from vgaudit.loading.wording import listed, shorten

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
MAX_INDEX = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file holds, and where it comes from.

    Attributes:
        root: names to tensors, or whatever ``torch.save`` was given.
        origin: format, tier, digest and notes.
        metadata: free texts of the file.
    """

    root: Any
    origin: Origin
    metadata: Mapping[str, str]


def is_index(path: Path) -> bool:
    """Returns whether a path names the index of a sharded checkpoint."""
    return path.name.endswith(INDEX_SUFFIXES)


def read(path: Path, text: str, options: LoadOptions) -> Contents:
    """Returns what a file holds.

    Args:
        path: the file, or the index of a sharded checkpoint.
        text: the specification as the user gave it.
        options: trust and digest.

    Raises:
        CannotLoad: missing, damaged, refused, or of a foreign format.
    """
    file = examine(path, options.sha256)
    if is_index(path):
        return read_shards(file, text)
    if safetensors_file.looks_like(file.head, path.suffix):
        return read_safetensors(file, text)
    return read_torch(file, text, options)


def read_safetensors(file: LocalFile, text: str) -> Contents:
    """Returns what a safetensors file holds."""
    if file.head[safetensors_file.LENGTH_BYTES :][:1] != b"{":
        refuse_foreign(file)
    header = safetensors_file.read_header(file)
    origin = Origin(spec=text, format="safetensors", tier="T0", sha256=file.sha256)
    return Contents(
        root=safetensors_file.read_tensors(file, header),
        origin=origin,
        metadata=header.metadata,
    )


def read_torch(file: LocalFile, text: str, options: LoadOptions) -> Contents:
    """Returns what a file of ``torch.save`` holds."""
    found = survey(file)
    opened = open_file(found, options)
    origin = Origin(
        spec=text,
        format=found.format,
        tier=opened.tier,
        sha256=file.sha256,
        notes=found.notes,
        archive_notes=found.archive_notes,
    )
    return Contents(root=opened.root, origin=origin, metadata={})


def read_shards(file: LocalFile, text: str) -> Contents:
    """Returns the tensors of all shards that an index names.

    Raises:
        CannotLoad: a shard is outside the folder or missing, or holds other
            tensors than the index says.
    """
    weight_map = read_index(file)
    root: dict[str, Any] = {}
    tier = "T0"
    for name in sorted(set(weight_map.values())):
        path = shard_path(file.path, name)
        check_plain(examine(path))
        part = read(path, text, LoadOptions())
        held = set(part.root) if isinstance(part.root, Mapping) else set()
        promised = {key for key, place in weight_map.items() if place == name}
        lacking = sorted(promised - held)
        if lacking:
            raise CannotLoad(
                f"{path} lacks {listed(lacking)}, which its index promises",
                hint="download the checkpoint again",
            )
        root |= {key: part.root[key] for key in promised}
        tier = max(tier, part.origin.tier)
    origin = Origin(
        spec=text,
        format="sharded",
        tier=tier,
        sha256=file.sha256,
        notes=("the sha256 is the index's; it does not pin the shards",),
    )
    return Contents(root=root, origin=origin, metadata={})


def read_index(file: LocalFile) -> dict[str, str]:
    """Returns which shard holds each tensor.

    Raises:
        CannotLoad: no index of a sharded checkpoint.
    """
    weight_map: Any = None
    if file.size <= MAX_INDEX:
        try:
            index = json.loads(file.path.read_bytes())
            weight_map = index["weight_map"] if isinstance(index, dict) else None
        except (ValueError, KeyError, RecursionError):
            weight_map = None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CannotLoad(
            f"{file.path} is no index of a sharded checkpoint: no weight_map",
            hint="download it again",
        )
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise CannotLoad(f"{file.path}: a shard has no name", hint="download it again")
    return weight_map


def shard_path(index: Path, name: str) -> Path:
    """Returns the path of a shard, which must lie beside the index.

    A link may only lead to where the Hugging Face cache keeps its files:
    ``blobs`` beside the ``snapshots`` that the index is in.

    Raises:
        CannotLoad: it lies elsewhere, or is missing.
    """
    shown = shorten(name)
    if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
        raise CannotLoad(
            f"{index} refused: the shard {shown} is not a plain file name",
            hint="an index may only name files beside it",
        )
    folder = index.parent.resolve()
    path = index.parent / name
    if not os.path.lexists(path):
        raise CannotLoad(
            f"{index}: the shard {shown} is missing",
            hint=f"download it to {index.parent}",
        )
    home = path.resolve().parent
    cached = folder.parent.name == "snapshots" and home == folder.parents[1] / "blobs"
    if home != folder and not cached:
        raise CannotLoad(
            f"{index} refused: the shard {shown} is a link out of its folder",
            hint="copy the file itself there",
        )
    regular_size(path)
    return path


def check_plain(file: LocalFile) -> None:
    """Refuses a file of weights that is damaged or needs more trust than none.

    Raises:
        CannotLoad: which.
    """
    if safetensors_file.looks_like(file.head, file.path.suffix):
        safetensors_file.read_header(file)
        return
    verdict = survey(file).verdict
    if verdict.tier == "T0":
        return
    names = verdict.unsafe or tuple(name for _, name in verdict.allowed)
    reasons = [f"needs globals {listed(names)}"] if names else []
    raise CannotLoad(
        f"{file.path} refused: {'; '.join((*reasons, *verdict.reasons))} "
        f"(tier {verdict.tier}, sha256 {file.sha256})",
        hint="here only plain weights are read: save them as safetensors",
    )
