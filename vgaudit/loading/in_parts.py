"""A model too large for one process: built without memory, filled part by part.

For weights in safetensors (one file, or the shards that an index names) with an
architecture whose keys they have. Their headers say where each tensor lies, so a rank
reads the rows that it keeps and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor, nn

from vgaudit.distributed.sharding import is_sharded, local, rows_of
from vgaudit.job import LoadOptions
from vgaudit.loading import safetensors_file
from vgaudit.loading.assemble import architecture
from vgaudit.loading.built import Built, EmptyOnMeta
from vgaudit.loading.contents import is_index, read_index, shard_path
from vgaudit.loading.loaded import LoadedModel, Origin, finish, is_finite
from vgaudit.loading.local_file import LocalFile, examine
from vgaudit.loading.spec import parse


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one tensor lies: in which file, at which byte."""

    file: LocalFile
    slot: safetensors_file.Slot
    begin: int


@dataclass(frozen=True, slots=True)
class Parts:
    """A model whose weights have not been read.

    Attributes:
        loaded: the model with zeros that take no memory for its weights.
    """

    loaded: LoadedModel
    _arch: str
    _options: LoadOptions
    _places: dict[str, _Place]

    def empty(self, dtype: torch.dtype | None) -> nn.Module:
        """Returns the model anew, its parameters on the meta device."""
        module = _built(self._arch, self._options).module
        return module if dtype is None else module.to(dtype)

    @torch.no_grad()
    def fill(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Returns the model with its weights: of what is sharded, this rank's part.

        Args:
            model: what ``empty`` returned, sharded or not.
            device: where the weights go.

        Raises:
            CannotLoad: a file became shorter meanwhile.
        """

        def placed(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return torch.empty_like(tensor, device=device)
            return tensor.to(device)

        model._apply(placed)  # type: ignore[no-untyped-call]
        named = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in named:
            place = self._places.get(name)
            if place is not None:
                with place.file.open() as stream:
                    local(tensor).copy_(_read(place, stream, tensor))
        return model

    def nonfinite(self, model: nn.Module) -> list[str]:
        """Returns the weights that hold NaN or infinity in this rank's part."""
        named = model.named_parameters()
        return [name for name, p in named if not is_finite(local(p.detach()))]


def open_in_parts(text: str, options: LoadOptions) -> Parts | None:
    """Returns a model to be filled in parts; None where it can only be read whole.

    Args:
        text: the model specification.
        options: with the architecture.

    Raises:
        CannotLoad: a file is missing or damaged.
    """
    path = parse(text, options).path
    if options.arch is None or path is None or path.is_dir() or options.key:
        return None
    file = examine(path, options.sha256)
    places = {p.slot.name: p for p in _places(file)}
    built = _built(options.arch, options)
    named = {**dict(built.module.named_parameters()), **_kept_buffers(built.module)}
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if shapes != {name: place.slot.shape for name, place in places.items()}:
        return None
    if any(buffer.is_meta for buffer in built.module.buffers()):
        return None
    _weightless(built.module)
    origin = Origin(
        spec=text,
        format="sharded" if is_index(file.path) else "safetensors",
        tier=built.tier,
        sha256=file.sha256,
        notes=("each process read its own part of the weights",),
    )
    loaded = finish(
        built.module, origin, architecture=built.name, example=built.example
    )
    return Parts(loaded, options.arch, options, places)


def _built(arch: str, options: LoadOptions) -> Built:
    with EmptyOnMeta():
        return architecture(arch, options, meta=True)


def _kept_buffers(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: b for name, b in module.named_buffers() if name in state}


def _places(file: LocalFile) -> Iterator[_Place]:
    """Yields where the tensors of a file, or of all shards of an index, lie."""
    if is_index(file.path):
        index = read_index(file)
        for name in sorted(set(index.values())):
            part = examine(shard_path(file.path, name))
            yield from (p for p in _places(part) if index.get(p.slot.name) == name)
    elif safetensors_file.looks_like(file.head, file.path.suffix):
        header = safetensors_file.read_header(file)
        for slot in header.slots:
            yield _Place(file, slot, header.start + slot.begin)


def _weightless(module: nn.Module) -> None:
    """Gives every parameter zeros that take the memory of one."""
    hulls: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                zeros = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                hull = nn.Parameter(zeros, requires_grad=parameter.requires_grad)
                part._parameters[name] = hulls.setdefault(id(parameter), hull)


def _read(place: _Place, stream: BinaryIO, tensor: Tensor) -> Tensor:
    """Returns the rows of a stored tensor that this rank keeps."""
    slot, shape = place.slot, place.slot.shape
    rows = shape[0] if shape else 1
    first, last = rows_of(tensor) if is_sharded(tensor) else (0, rows)
    row = (slot.end - slot.begin) // max(rows, 1)
    raw = torch.empty((last - first) * row, dtype=torch.uint8)
    stream.seek(place.begin + first * row)
    if raw.numel() and stream.readinto(raw.numpy()) != raw.numel():  # type: ignore[attr-defined]
        raise place.file.damaged("it became shorter while it was read")
    return raw.view(slot.dtype).reshape((last - first, *shape[1:]) if shape else ())
