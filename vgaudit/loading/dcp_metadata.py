"""What ``.metadata`` says of a checkpoint of torch.distributed.checkpoint.

It is a pickle, and torch reads it with all that a pickle may do. Here its opcodes are
followed as those of any pickle: the objects in it stay descriptions.
Source: ``torch/distributed/checkpoint/{metadata,filesystem,default_planner}.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch

from vgaudit.errors import CannotLoad
from vgaudit.loading.local_file import LocalFile
from vgaudit.loading.pickle_facts import MalformedPickle, Name
from vgaudit.loading.pickle_values import Filled, described
from vgaudit.loading.wording import listed, shorten

METADATA = ".metadata"
SUFFIX = ".distcp"
MAX_METADATA = 2**30
MAX_PATH = 64

_CLASSES = "torch.distributed.checkpoint.metadata."
_STORAGE = "torch.distributed.checkpoint.filesystem._StorageInfo"

KNOWN = frozenset(
    {f"{_CLASSES}{name}" for name in ("Metadata", "MetadataIndex", "StorageMeta")}
    | {f"{_CLASSES}{name}StorageMetadata" for name in ("Tensor", "Bytes", "Chunk")}
    | {f"{_CLASSES}{name}" for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")}
    | {f"pathlib.{kind}Path" for kind in ("Posix", "PurePosix", "Windows")}
    | {f"pathlib._local.{kind}Path" for kind in ("Posix", "PurePosix", "Windows")}
    | {_STORAGE, "torch.Size", "torch.serialization._get_layout"}
    | {"collections.OrderedDict"}
)
"""What torch names in ``.metadata``, beside the types of numbers."""

Key = tuple[str, tuple[int, ...] | None]
"""A name in the checkpoint and, of a tensor, where in it a chunk begins."""


class Odd(ValueError):
    """A description that is not what torch writes at that place."""


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a file beside ``.metadata``.

    Attributes:
        transforms: what they went through when they were written.
    """

    file: str
    begin: int
    length: int
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A block of a tensor that was written by itself: where it begins, its shape."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of the checkpoint, in the chunks that several processes wrote."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Anything else of the checkpoint, which ``torch.save`` wrote."""

    name: str
    place: Place


Stored = StoredTensor | StoredObject


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint holds.

    Attributes:
        stored: by name, in the order of the file.
        paths: keys from the outermost dict to each of them; empty where the
            checkpoint was written without.
    """

    stored: dict[str, Stored]
    paths: dict[str, tuple[str, ...]]


def read_metadata(file: LocalFile) -> Description:
    """Returns what ``.metadata`` describes.

    Raises:
        CannotLoad: damaged, or it names what torch never writes there.
    """
    if file.size > MAX_METADATA:
        raise broken(file, f"it has {file.size} bytes, more than {MAX_METADATA}")
    try:
        facts = described(file.path.read_bytes())
    except MalformedPickle as error:
        raise broken(file, error.message) from error
    strange = [name for name in facts.globals if not _is_known(name)]
    if strange:
        plural = "s" if len(strange) > 1 else ""
        raise CannotLoad(
            f"{file.path} refused: needs global{plural} {listed(strange)} "
            f"(tier T3, sha256 {file.sha256})",
            hint="torch would run it, and no option reads it here: write the "
            "checkpoint again by torch.distributed.checkpoint.save with its default "
            "planner, or save the state_dict",
        )
    try:
        return _description(facts.root)
    except Odd as error:
        raise broken(file, str(error)) from error


def broken(file: LocalFile, reason: str) -> CannotLoad:
    """Returns the error for metadata that no torch writes."""
    return CannotLoad(
        f"{file.path} is no metadata of torch.distributed.checkpoint: {reason}",
        hint="the file is damaged or hostile: copy the checkpoint again",
    )


def _is_known(name: str) -> bool:
    return name in KNOWN or _dtype(name) is not None


def _dtype(name: str) -> torch.dtype | None:
    """Returns the type of numbers of that name; imports nothing."""
    found = vars(torch).get(name.removeprefix("torch."))
    return found if isinstance(found, torch.dtype) else None


def _description(root: Any) -> Description:
    fields = _fields(root, "Metadata")
    places = dict(_places(fields.get("storage_data")))
    stored = {
        name: _stored(name, entry, places)
        for name, entry in _pairs(fields.get("state_dict_metadata"), "its entries")
    }
    planned = fields.get("planner_data")
    if isinstance(planned, Filled) and planned.kind == "dict":
        return Description(stored, dict(_paths(planned)))
    # Other planners keep other things there.
    return Description(stored, {})


def _places(storage: Any) -> Iterator[tuple[Key, Place]]:
    """Yields where each chunk and each object lies."""
    if not isinstance(storage, Filled) or storage.kind != "dict":
        raise Odd("it does not say where anything lies")
    for index, info in storage.pairs:
        known = _fields(index, "MetadataIndex")
        offset = known.get("offset")
        key = (_text(known.get("fqn")), None if offset is None else _sizes(offset))
        found = _state(info, _STORAGE)
        begin, length = found.get("offset"), found.get("length")
        if not (_is_count(begin) and _is_count(length) and length):
            raise Odd(f"{shorten(key[0])} lies nowhere")
        transforms = found.get("transform_descriptors")
        texts = transforms.items if isinstance(transforms, Filled) else ()
        yield (
            key,
            Place(
                _text(found.get("relative_path")),
                begin,
                length,
                tuple(shorten(str(text)) for text in texts),
            ),
        )


def _stored(name: str, entry: Any, places: dict[Key, Place]) -> Stored:
    shown = shorten(name)
    if getattr(entry, "kind", "") == f"{_CLASSES}BytesStorageMetadata":
        if (name, None) not in places:
            raise Odd(f"it does not say where {shown} lies")
        return StoredObject(name, places[name, None])
    fields = _fields(entry, "TensorStorageMetadata")
    properties = fields.get("properties")
    state = getattr(properties, "state", None)
    first = state.items[0] if isinstance(state, Filled) and state.items else None
    dtype = _dtype(first.full) if isinstance(first, Name) else None
    if dtype is None:
        raise Odd(f"{shown} has an unknown dtype")
    shape = _sizes(fields.get("size"))
    chunks = fields.get("chunks")
    found = []
    for chunk in chunks.items if isinstance(chunks, Filled) else ():
        known = _fields(chunk, "ChunkStorageMetadata")
        offsets, sizes = _sizes(known.get("offsets")), _sizes(known.get("sizes"))
        if (name, offsets) not in places:
            raise Odd(f"it does not say where the chunk {list(offsets)} of {shown} is")
        found.append(Chunk(offsets, sizes, places[name, offsets]))
    whole = StoredTensor(name, dtype, shape, tuple(found))
    _check_cover(whole)
    return whole


def _check_cover(tensor: StoredTensor) -> None:
    """Refuses chunks that leave an element of the tensor out, or give it twice."""
    shown, shape = shorten(tensor.name), tensor.shape
    for chunk in tensor.chunks:
        if len(chunk.offsets) != len(shape) or len(chunk.sizes) != len(shape):
            raise Odd(f"a chunk of {shown} has other dimensions than {list(shape)}")
        ends = map(sum, zip(chunk.offsets, chunk.sizes, strict=True))
        if any(end > size for end, size in zip(ends, shape, strict=True)):
            raise Odd(f"a chunk of {shown} reaches beyond its shape {list(shape)}")
    filled = [chunk for chunk in tensor.chunks if math.prod(chunk.sizes)]
    if sum(math.prod(chunk.sizes) for chunk in filled) != math.prod(shape):
        raise Odd(f"the chunks of {shown} do not add up to its shape {list(shape)}")
    if _overlap(filled):
        raise Odd(f"chunks of {shown} overlap")


def _overlap(chunks: list[Chunk]) -> bool:
    """Tells whether any two chunks, none of them empty, share an element."""
    if not chunks or not chunks[0].sizes:
        return len(chunks) > 1
    ordered = sorted(chunks, key=lambda chunk: chunk.offsets)
    for number, chunk in enumerate(ordered):
        end = chunk.offsets[0] + chunk.sizes[0]
        for other in ordered[number + 1 :]:
            if other.offsets[0] >= end:
                break
            if _share(chunk, other):
                return True
    return False


def _share(one: Chunk, other: Chunk) -> bool:
    return all(
        a < b + b_size and b < a + a_size
        for a, a_size, b, b_size in zip(
            one.offsets, one.sizes, other.offsets, other.sizes, strict=True
        )
    )


def _paths(planned: Filled) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the keys, from the outermost dict on, that lead to each entry."""
    for name, path in planned.pairs:
        steps = path.items if isinstance(path, Filled) else []
        if not 0 < len(steps) <= MAX_PATH:
            raise Odd(f"{shorten(_text(name))} has no path")
        if not all(isinstance(step, str | int) for step in steps):
            raise Odd(f"the path of {shorten(_text(name))} is no list of keys")
        yield _text(name), tuple(map(str, steps))


def _fields(value: Any, kind: str) -> dict[str, Any]:
    return _state(value, f"{_CLASSES}{kind}")


def _state(value: Any, kind: str) -> dict[str, Any]:
    """Returns the attributes that an object of a class would have."""
    state = value.state if isinstance(value, Filled) and value.kind == kind else None
    if not isinstance(state, Filled) or state.kind != "dict":
        raise Odd(f"no {kind.rpartition('.')[2]} where torch writes one")
    return dict(_pairs(state, "attributes"))


def _pairs(value: Any, what: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Filled) or value.kind != "dict":
        raise Odd(f"{what} are no dict")
    for key, entry in value.pairs:
        yield _text(key), entry


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Odd("a number or an object where torch writes a name")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    """Returns the numbers of a ``torch.Size``."""
    if not isinstance(value, Filled) or value.kind != "torch.Size" or not value.items:
        raise Odd("no torch.Size where torch writes one")
    numbers = value.items[0].items if isinstance(value.items[0], Filled) else [None]
    if not all(map(_is_count, numbers)):
        raise Odd("a torch.Size of something else than counts")
    return tuple(numbers)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63
