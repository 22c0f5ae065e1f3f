"""A model too large for one process: built without memory, filled part by part.

For weights in safetensors (one file, or the shards that an index names) or in a
checkpoint of torch.distributed.checkpoint, with an architecture whose keys they have.
Both say where each tensor lies, so a rank reads the rows that it keeps and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vgaudit.distributed.sharding import is_sharded, local, rows_of
from vgaudit.job import LoadOptions
from vgaudit.loading import dcp, safetensors_file
from vgaudit.loading.assemble import architecture
from vgaudit.loading.built import Built, EmptyOnMeta
from vgaudit.loading.checkpoint import select
from vgaudit.loading.contents import is_index, read_index, refuse_part
from vgaudit.loading.fit import converted, shapes
from vgaudit.loading.folder import weights_of
from vgaudit.loading.keys import match_keys
from vgaudit.loading.loaded import KeyReport, LoadedModel, Origin, finish, is_finite
from vgaudit.loading.local_file import LocalFile, examine, shard_path
from vgaudit.loading.spec import Spec, parse


class _Source(Protocol):
    """Where one tensor is read from."""

    def rows(self, first: int, last: int) -> Tensor:
        """Returns some rows of it, a scalar whole."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor of a safetensors file: which file, and at which byte."""

    file: LocalFile
    slot: safetensors_file.Slot
    begin: int

    def rows(self, first: int, last: int) -> Tensor:
        """Returns some rows of it, a scalar whole."""
        slot, shape = self.slot, self.slot.shape
        row = (slot.end - slot.begin) // max(shape[0] if shape else 1, 1)
        raw = torch.empty((last - first) * row, dtype=torch.uint8)
        with self.file.open() as stream:
            stream.seek(self.begin + first * row)
            count = stream.readinto(raw.numpy())  # type: ignore[attr-defined]
        if count != raw.numel():
            raise self.file.damaged("it became shorter while it was read")
        return raw.view(slot.dtype).reshape((last - first, *shape[1:]) if shape else ())


@dataclass(frozen=True, slots=True)
class _Stored:
    """The weights of a file, before any of them is read.

    Attributes:
        state: names to tensors on the meta device, and whatever else was saved.
        sources: of those that are tensors.
        format: as in ``Origin``.
        notes: statements for the user.
    """

    state: Mapping[str, Any]
    sources: dict[str, _Source]
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """A model whose weights have not been read.

    Attributes:
        loaded: the model with zeros that take no memory for its weights.
    """

    loaded: LoadedModel
    _arch: str
    _options: LoadOptions
    _sources: dict[str, _Source]

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
            CannotLoad: a file became shorter meanwhile, or is damaged.
        """

        def placed(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return torch.empty_like(tensor, device=device)
            return tensor.to(device)

        model._apply(placed)  # type: ignore[no-untyped-call]
        named = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in named:
            source = self._sources.get(name)
            if source is not None:
                rows = tensor.shape[0] if tensor.dim() else 1
                first, last = rows_of(tensor) if is_sharded(tensor) else (0, rows)
                local(tensor).copy_(source.rows(first, last))
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
    spec = parse(text, options)
    if options.arch is None or spec.path is None:
        return None
    refuse_part(spec.path)
    file = examine(weights_of(spec.path), options.sha256)
    stored = _stored(file, spec)
    if stored is None:
        return None
    built = _built(options.arch, options)
    fitted = _fitted(built.module, stored, spec.text)
    if fitted is None:
        return None
    keys, sources = fitted
    _weightless(built.module)
    origin = Origin(
        spec=text,
        format=stored.format,
        tier=built.tier,
        sha256=file.sha256,
        notes=(*stored.notes, "each process read its own part of the weights"),
    )
    loaded = finish(
        built.module,
        origin,
        architecture=built.name,
        keys=keys,
        example=built.example,
    )
    return Parts(loaded, options.arch, options, sources)


def _stored(file: LocalFile, spec: Spec) -> _Stored | None:
    """Returns what a file holds; None where that is only known by reading it all."""
    if file.path.name == dcp.METADATA:
        found = dcp.open_checkpoint(file)
        entry = select(found.root, spec.key, spec.text)
        state: Mapping[str, Any] = entry.value  # type: ignore[assignment]
        tensors = {k: found.rows(v) for k, v in state.items() if isinstance(v, Tensor)}
        note = (f"taken from the entry {entry.key}",) if entry.key else ()
        return _Stored(state, dict(tensors), dcp.FORMAT, (dcp.NOTE, *note))
    if spec.key:
        return None
    places = {place.slot.name: place for place in _slots(file)}
    metas = {
        name: torch.empty(place.slot.shape, dtype=place.slot.dtype, device="meta")
        for name, place in places.items()
    }
    kind = "sharded" if is_index(file.path) else "safetensors"
    return _Stored(metas, dict(places), kind) if places else None


def _fitted(
    module: nn.Module, stored: _Stored, place: str
) -> tuple[KeyReport, dict[str, _Source]] | None:
    """Returns where each parameter and buffer is read from.

    A tied parameter may be stored under one of its names or under several.

    Returns:
        None where the keys or shapes of the two differ, or a buffer has no data:
        reading the whole says why, or mends it.

    Raises:
        CannotLoad: integers or complex numbers where the architecture has
            floating-point numbers.
    """
    wanted = dict(module.state_dict(keep_vars=True))
    expected = shapes(wanted)
    match = match_keys(shapes(stored.state), expected)
    if match.rivals or any(buffer.is_meta for buffer in module.buffers()):
        return None
    state = {match.names[name]: value for name, value in stored.state.items()}
    # What has no shape is no tensor, or a lazy parameter.
    if any(s is None or s != expected.get(k) for k, s in shapes(state).items()):
        return None
    given = {id(wanted[name]): name for name in reversed(state)}
    kept = {name: b for name, b in module.named_buffers() if name in wanted}
    needed = {**dict(module.named_parameters()), **kept}
    if any(id(tensor) not in given for tensor in needed.values()):
        return None
    names = {new: old for old, new in match.names.items()}
    sources = {
        name: stored.sources[names[given[id(tensor)]]]
        for name, tensor in needed.items()
    }
    notes = tuple(converted(state, wanted, place))
    return KeyReport(stripped_prefixes=match.stripped, notes=notes), sources


def _built(arch: str, options: LoadOptions) -> Built:
    with EmptyOnMeta():
        return architecture(arch, options, meta=True)


def _slots(file: LocalFile) -> Iterator[_Slot]:
    """Yields where the tensors of a file, or of all shards of an index, lie."""
    if is_index(file.path):
        index = read_index(file)
        for name in sorted(set(index.values())):
            part = examine(shard_path(file.path, name))
            yield from (p for p in _slots(part) if index.get(p.slot.name) == name)
    elif safetensors_file.looks_like(file.head, file.path.suffix):
        header = safetensors_file.read_header(file)
        for slot in header.slots:
            yield _Slot(file, slot, header.start + slot.begin)


def _weightless(module: nn.Module) -> None:
    """Gives every parameter zeros that take the memory of one."""
    hulls: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                zeros = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                hull = nn.Parameter(zeros, requires_grad=parameter.requires_grad)
                part._parameters[name] = hulls.setdefault(id(parameter), hull)
