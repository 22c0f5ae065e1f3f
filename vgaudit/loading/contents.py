"""What a file of weights or a pickled module holds, whichever its format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading import dcp, safetensors_file
from vgaudit.loading.foreign import refuse_foreign
from vgaudit.loading.loaded import Origin
from vgaudit.loading.local_file import LocalFile, examine, shard_path
from vgaudit.loading.survey import survey
from vgaudit.loading.torch_file import open_file
from vgaudit.loading.wording import listed

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
MAX_INDEX = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file holds, and where it comes from.

    Attributes:
        root: names to tensors, or whatever ``torch.save`` was given.
        origin: format, tier, digest and notes.
        metadata: free texts of the file.
        pending: reads an entry of ``root`` whose tensors have no data yet; None
            where all is read.
    """

    root: Any
    origin: Origin
    metadata: Mapping[str, str]
    pending: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None


def is_index(path: Path) -> bool:
    """Returns whether a path names the index of a sharded checkpoint."""
    return path.name.endswith(INDEX_SUFFIXES)


def read(path: Path, text: str, options: LoadOptions) -> Contents:
    """Returns what a file holds.

    Args:
        path: the file, or what describes a checkpoint of many.
        text: the specification as the user gave it.
        options: trust and digest.

    Raises:
        CannotLoad: missing, damaged, refused, or of a foreign format.
    """
    refuse_part(path)
    file = examine(path, options.sha256)
    if path.name == dcp.METADATA:
        return read_distributed(file, text)
    if is_index(path):
        return read_shards(file, text)
    if safetensors_file.looks_like(file.head, path.suffix):
        return read_safetensors(file, text)
    return read_torch(file, text, options)


def refuse_part(path: Path) -> None:
    """Refuses one of the files that a distributed checkpoint consists of.

    Raises:
        CannotLoad: names its folder.
    """
    if path.suffix == dcp.SUFFIX:
        raise CannotLoad(
            f"{path} is one file of a distributed checkpoint",
            hint=f"give its folder: {path.parent}",
        )


def read_distributed(file: LocalFile, text: str) -> Contents:
    """Returns what a distributed checkpoint holds, its tensors not yet read."""
    found = dcp.open_checkpoint(file)
    origin = Origin(
        spec=text, format=dcp.FORMAT, tier="T0", sha256=file.sha256, notes=(dcp.NOTE,)
    )
    return Contents(root=found.root, origin=origin, metadata={}, pending=found.fetched)


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
