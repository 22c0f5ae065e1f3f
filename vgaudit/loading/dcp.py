"""Checkpoints of torch.distributed.checkpoint (DCP): a folder that many wrote.

``.metadata`` says which chunk of which tensor lies where in the ``.distcp`` files. Each
chunk is an archive of ``torch.save``, and is checked and read as any other; so a
process can read the rows that it keeps, chunk by chunk, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgaudit.errors import CannotLoad
from vgaudit.loading.dcp_metadata import (
    METADATA,
    SUFFIX,
    Chunk,
    Description,
    Place,
    Stored,
    StoredObject,
    StoredTensor,
    broken,
    read_metadata,
)
from vgaudit.loading.local_file import LocalFile, regular_size, shard_path
from vgaudit.loading.survey import survey
from vgaudit.loading.tensors import check_storage, refuse_kind
from vgaudit.loading.torch_file import read_safely
from vgaudit.loading.wording import listed, shorten

__all__ = [
    "METADATA",
    "SUFFIX",
    "Checkpoint",
    "StoredRows",
    "format_within",
    "open_checkpoint",
]

FORMAT = "distributed-checkpoint"
CHECKPOINT = "checkpoint"
NOTE = "the sha256 is that of .metadata; it does not pin the files of the tensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose tensors have not been read.

    Attributes:
        file: its ``.metadata``.
        root: what was saved, dict by dict; tensors are on the meta device, whatever
            else there is waits to be read.
    """

    file: LocalFile
    root: dict[str, Any]
    _stored: dict[int, Stored]

    def fetched(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an entry of ``root`` with its values read.

        Raises:
            CannotLoad: a file is missing, damaged, or needs more trust than none.
        """
        return {name: self._read(value) for name, value in entry.items()}

    def rows(self, value: Tensor) -> StoredRows:
        """Returns what stands for a tensor of ``root``, to be read in part."""
        stored = self._stored[id(value)]
        assert isinstance(stored, StoredTensor)
        return StoredRows(self.file, stored)

    def _read(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.fetched(value)
        stored = self._stored[id(value)]
        if isinstance(stored, StoredObject):
            return _loaded(self.file, stored.name, stored.place)
        whole = StoredRows(self.file, stored)
        return whole.rows(0, stored.shape[0] if stored.shape else 1)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """A tensor of a checkpoint, of which any rows can be read."""

    _file: LocalFile
    _stored: StoredTensor

    def rows(self, first: int, last: int) -> Tensor:
        """Returns some rows, a scalar whole; one chunk is in memory beside them.

        Args:
            first: of them.
            last: the one behind them.

        Raises:
            CannotLoad: a file is missing or damaged, or holds something else.
        """
        shape = self._stored.shape
        if not shape:
            (chunk,) = self._stored.chunks
            return self._chunk(chunk)
        found = torch.empty((last - first, *shape[1:]), dtype=self._stored.dtype)
        for chunk in self._stored.chunks:
            begin = max(first, chunk.offsets[0])
            end = min(last, chunk.offsets[0] + chunk.sizes[0])
            if begin >= end or not all(chunk.sizes):
                continue
            own = self._chunk(chunk)[begin - chunk.offsets[0] : end - chunk.offsets[0]]
            if own.shape == found.shape:
                return own
            others = zip(chunk.offsets[1:], chunk.sizes[1:], strict=True)
            place = (
                slice(begin - first, end - first),
                *(slice(offset, offset + size) for offset, size in others),
            )
            found[place] = own
        return found

    def _chunk(self, chunk: Chunk) -> Tensor:
        name, dtype = self._stored.name, self._stored.dtype
        value = _loaded(self._file, name, chunk.place)
        where = f"{self._file.path.parent / chunk.place.file}: {shorten(name)}"
        if not isinstance(value, Tensor):
            raise CannotLoad(
                f"{where} is no tensor, as {METADATA} says",
                hint="the checkpoint is damaged: copy it again",
            )
        value = value.detach()
        refuse_kind(where, value)
        if value.layout != torch.strided:
            raise CannotLoad(f"{where} is sparse", hint="save it dense: to_dense()")
        check_storage(where, value)
        if (tuple(value.shape), value.dtype) != (chunk.sizes, dtype):
            raise CannotLoad(
                f"{where} is {list(value.shape)} {value.dtype}, and {METADATA} says "
                f"{list(chunk.sizes)} {dtype}",
                hint="files of two checkpoints are mixed, or damaged: copy it again",
            )
        return value


def format_within(known: str) -> str:
    """Returns the format to state where one entry of several is taken."""
    return known if known == FORMAT else CHECKPOINT


def open_checkpoint(file: LocalFile) -> Checkpoint:
    """Returns a checkpoint by its ``.metadata``.

    Raises:
        CannotLoad: the metadata is damaged or hostile.
    """
    described = read_metadata(file)
    try:
        leaves = {name: _leaf(stored) for name, stored in described.stored.items()}
    except (RuntimeError, OverflowError) as error:
        raise broken(file, "a tensor is larger than any memory") from error
    stored = {id(leaves[name]): entry for name, entry in described.stored.items()}
    return Checkpoint(file, _nested(file, described, leaves), stored)


def _leaf(stored: Stored) -> Any:
    if isinstance(stored, StoredObject):
        return stored
    return torch.empty(stored.shape, dtype=stored.dtype, device="meta")


def _nested(
    file: LocalFile, described: Description, leaves: dict[str, Any]
) -> dict[str, Any]:
    """Returns the dicts that were saved, which the checkpoint keeps as paths."""
    root: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *outer, last = described.paths.get(name, (name,))
        holder = root
        for step in outer:
            holder = holder.setdefault(step, {})
            if not isinstance(holder, dict):
                raise broken(file, f"{shorten(name)} lies inside of a tensor")
        if last in holder:
            raise broken(file, f"two entries have the path of {shorten(name)}")
        holder[last] = leaf
    return root


def _loaded(metadata: LocalFile, name: str, place: Place) -> Any:
    """Returns what ``torch.save`` wrote at a place, read with no trust at all.

    Raises:
        CannotLoad: why not, with the name of the entry.
    """
    path = shard_path(metadata.path, place.file)
    shown, size = shorten(name), regular_size(path)
    if place.begin + place.length > size:
        raise CannotLoad(
            f"{path} is truncated: {shown} ends at byte {place.begin + place.length}, "
            f"the file has {size}",
            hint="copy the checkpoint again",
        )
    if place.transforms:
        raise CannotLoad(
            f"{path}: {shown} was written through {listed(place.transforms)}",
            hint="save the checkpoint without extensions",
        )
    whole = LocalFile(path=path, size=size, sha256="", head=b"")
    try:
        found = survey(whole.part(place.begin, place.length))
        if found.verdict.tier == "T0":
            return read_safely(found, ())
    except CannotLoad as error:
        raise CannotLoad(f"{shown}: {error.message}", hint=error.hint) from error
    verdict = found.verdict
    names = verdict.unsafe or tuple(name for _, name in verdict.allowed)
    reasons = [f"needs globals {listed(names)}"] if names else []
    raise CannotLoad(
        f"{path} refused: {shown} {'; '.join((*reasons, *verdict.reasons))} "
        f"(tier {verdict.tier})",
        hint="here only plain weights are read: save the state_dict alone, by "
        "torch.distributed.checkpoint.save(model.state_dict(), …)",
    )
