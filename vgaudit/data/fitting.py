"""Arrays brought to the shape and type that a model takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.data.inputs.consumers import Use, consumers, registered_entries
from vgaudit.data.inputs.dry_run import DryRun
from vgaudit.data.inputs.infer import model_dtype
from vgaudit.data.inputs.signature import required


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the shape of a batch.

    Attributes:
        note: what it does, for the user; empty for nothing.
        apply: from ``[N, …]`` to ``[N, …]``.
    """

    note: str
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Fit:
    """How array batches become inputs of one model.

    Attributes:
        ids: whole numbers stay whole numbers.
        dtype: type of everything else.
        change: of the shape of a single input.
        notes: what is done, for the user.
    """

    ids: bool
    dtype: torch.dtype
    change: Change
    notes: tuple[str, ...] = ()

    def apply(self, batch: Batch) -> Batch:
        """Returns the batch as the model takes it."""
        args = tuple(self._fit(value, bare=True) for value in batch.args)
        kwargs = {name: self._fit(value) for name, value in batch.kwargs.items()}
        labels = batch.labels
        if isinstance(labels, Tensor) and labels.is_floating_point():
            labels = labels.to(self.dtype)
        return Batch(args=args, kwargs=kwargs, labels=labels, size=batch.size)

    def _fit(self, value: Any, *, bare: bool = False) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not bare:  # under names, whole numbers are ids and masks
            return value.to(self.dtype) if value.is_floating_point() else value
        if value.dtype is torch.uint8 and value.dim() > 2:
            value = value.to(self.dtype) / 255
        elif value.is_complex():
            pass
        elif self.ids and not value.is_floating_point():
            value = value.long()
        else:
            value = value.to(self.dtype)
        return self.change.apply(value)


_AS_IS = Change("", lambda x: x)


def fit_arrays(batch: Batch, model: nn.Module, *, mode: str = "train") -> Fit:
    """Returns the first change of shape with which ``model`` runs on ``batch``.

    Where none runs, nothing is changed, and the scan says what does not fit.
    """
    ids = _starts_with_ids(model)
    plain = Fit(ids, model_dtype(model), _AS_IS)
    single = batch.args[0] if len(batch.args) == 1 and not batch.kwargs else None
    if not isinstance(single, Tensor):
        return plain
    notes = _type_notes(single, ids, plain.dtype)
    runner = DryRun(model, mode=mode)
    value = plain.apply(batch).args[0]
    for change in _changes(value):
        trial = runner.try_call((change.apply(value),), {}, size=batch.size)
        if trial.ran and trial.keeps_batch:
            said = (*notes, change.note) if change.note else notes
            return Fit(ids, plain.dtype, change, said)
    return Fit(ids, plain.dtype, _AS_IS, notes)


def _starts_with_ids(model: nn.Module) -> bool:
    """Tells whether the first argument goes into an embedding."""
    names = [parameter.name for parameter in required(model)]
    use = consumers(model).get(names[0], Use()) if names else Use()
    entries = use.entries or registered_entries(model)
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return bool(entries) and isinstance(entries[0].layer, kinds)


def _type_notes(value: Tensor, ids: bool, dtype: torch.dtype) -> tuple[str, ...]:
    if value.dtype is torch.uint8 and value.dim() > 2:
        return ("bytes scaled to [0, 1]",)
    if not value.is_floating_point() and not value.is_complex() and not ids:
        return (f"whole numbers turned into {str(dtype).removeprefix('torch.')}",)
    return ()


def _changes(value: Tensor) -> Iterator[Change]:
    yield _AS_IS
    if value.dim() == 4:
        yield from _of_images(value)
    if value.dim() == 3:
        yield Change("a channel dimension added", lambda x: x.unsqueeze(1))
        yield Change(
            "grey repeated in three channels",
            lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
        )
        yield Change("last two dimensions exchanged", lambda x: x.transpose(1, 2))
    if value.dim() > 2:
        yield Change("each sample flattened", lambda x: x.flatten(1))
    if value.dim() == 2:
        yield from _of_vectors(value.shape[1])
    if value.dim() == 1:
        yield Change("a feature dimension added", lambda x: x.unsqueeze(1))


def _of_images(value: Tensor) -> Iterator[Change]:
    channels_last = "channels moved from the last dimension to the second"
    if value.shape[-1] in (1, 3, 4):
        yield Change(channels_last, lambda x: x.movedim(-1, 1))
    if value.shape[1] == 1:
        repeated = "grey repeated in three channels"
        yield Change(repeated, lambda x: x.expand(-1, 3, -1, -1))
        yield Change("the channel dimension removed", lambda x: x.squeeze(1))
    if value.shape[1] == 3:
        yield Change("colours averaged to grey", lambda x: x.mean(1, keepdim=True))
    if value.shape[-1] == 3:
        yield Change(
            f"{channels_last}, colours averaged to grey",
            lambda x: x.movedim(-1, 1).mean(1, keepdim=True),
        )


def _of_vectors(features: int) -> Iterator[Change]:
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if side > 1 and channels * side * side == features:
            yield _unflatten(channels, side)
    yield Change("a channel dimension added", lambda x: x.unsqueeze(1))
    yield Change("a feature dimension added", lambda x: x.unsqueeze(2))


def _unflatten(channels: int, side: int) -> Change:
    shape = (channels, side, side)
    note = f"each row read as an image of {channels}x{side}x{side}"
    return Change(note, lambda x: x.reshape(len(x), *shape))
