"""Opening the data of a training: every sample, by number."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from vgaudit.data.arrays import as_tensor
from vgaudit.data.batch import Batch
from vgaudit.data.batches import Batches
from vgaudit.data.calls import tensors
from vgaudit.data.fitting import fit_arrays
from vgaudit.data.images import Taker, prepare_images
from vgaudit.data.lazy import initialise
from vgaudit.data.opening import only_size
from vgaudit.data.sampling import collate
from vgaudit.data.seeding import private_random
from vgaudit.data.sources import open_source
from vgaudit.data.sources.content import Content
from vgaudit.data.sources.factory import content_of
from vgaudit.errors import BadConfig, CannotLoad, CannotRun, VgauditError
from vgaudit.flow import DataFacts
from vgaudit.job import DataOptions
from vgaudit.plain import visible
from vgaudit.probe.tensors import map_tensors
from vgaudit.training.samples import MOST_KEPT, Kept, Read, Samples, Say, joined, keep

_LOOK_AT = 8


def open_samples(
    model: nn.Module, options: DataOptions, hint: object | None, say: Say
) -> Samples:
    """Returns the samples behind ``options.data``, made to fit ``model``.

    Raises:
        BadConfig: no data, or an option is wrong.
        UnknownSource: no source understands the data spec.
        CannotLoad: the data is missing, refused, damaged, or without labels.
    """
    if options.data is None:
        raise BadConfig(
            "training needs data", hint="give --data torchvision:MNIST@ROOT, a file …"
        )
    content = open_source(options.data, seed=options.seed)
    spec = visible(options.data)
    if content.images is not None:
        taker = Taker(model=model, hint=hint, options=options, mode="train")
        images, notes = prepare_images(content.images, taker)
        content = dataclasses.replace(
            content, images=None, samples=images, notes=(*content.notes, *notes)
        )
        store: Any = keep(images, content.skips, say)
        found = _samples(content, model, spec, store, options.seed)
    else:
        found = _of_content(content, model, spec, options, say)
    return dataclasses.replace(found, only=only_size(hint))


def samples_of(data: Any, model: nn.Module, options: DataOptions, say: Say) -> Samples:
    """Returns the samples of a Python object.

    A tuple ``(x, y)`` or a dict holds all samples, a list holds batches, a
    ``DataLoader`` over a data set gives its data set (its order is not used), another
    iterable is read once and kept.

    Raises:
        CannotLoad: the object is no data, or fails.
    """
    if isinstance(data, Samples):
        return data
    spec = f"Python object of type {type(data).__name__}"
    one = isinstance(data, (Tensor, np.ndarray, Mapping, tuple, Batch))
    if one:
        content = Content(stream=[data])
    else:
        content = content_of(data, f"the data of type {type(data).__name__}")
    return _of_content(content, model, spec, options, say)


def _of_content(
    content: Content, model: nn.Module, spec: str, options: DataOptions, say: Say
) -> Samples:
    store: Any = None
    if content.samples is not None:
        ours = content.arrays or isinstance(content.samples, TensorDataset)
        store = keep(content.samples, content.skips, say) if ours else None
        return _samples(content, model, spec, store, options.seed)
    stream = content.stream or ()
    if isinstance(stream, DataLoader) and not isinstance(
        stream.dataset, IterableDataset
    ):
        read = Read(stream.dataset, content.skips, options.seed, stream.collate_fn)
        note = "the loader's data set is used, in an order of our own"
        content = dataclasses.replace(content, notes=(*content.notes, note))
        opened = _samples(content, model, spec, read, options.seed)
        return dataclasses.replace(opened, batch_size=stream.batch_size)
    store = _collected(stream, options, spec)
    return _samples(content, model, spec, store, options.seed)


def _collected(stream: Iterable[Any], options: DataOptions, spec: str) -> Kept:
    """Returns all batches of a stream, in memory."""
    found: list[Any] = []
    size = 0
    with private_random(options.seed, "stream"):
        try:
            for element in _batches(stream):
                found.append(_plain(element))
                size += sum(t.numel() * t.element_size() for t in tensors(found[-1]))
                if size > MOST_KEPT:
                    break
        except VgauditError:
            raise
        except Exception as error:
            raise CannotLoad(
                f"the data fails: {type(error).__name__}: {visible(str(error))}"
            ) from error
    if size > MOST_KEPT:
        raise CannotLoad(
            f"{spec} gives more than {MOST_KEPT >> 30} GiB of batches, or never ends",
            hint="give a Dataset, whose samples have numbers",
        )
    kept = joined(found)
    if kept is None:
        raise CannotLoad(
            f"the batches of {spec} cannot be put together: their shapes differ",
            hint="give a Dataset, or batches of one shape",
        )
    return kept


def _batches(stream: Iterable[Any]) -> Iterable[Any]:
    if not isinstance(stream, IterableDataset):
        return stream
    items = iter(stream)
    chunks = iter(lambda: list(itertools.islice(items, 256)), [])
    return (collate(chunk) for chunk in chunks)


def _plain(element: Any) -> Any:
    if isinstance(element, Batch):
        if element.kwargs or len(element.args) != 1:
            return {**element.kwargs, "labels": element.labels}
        return (element.args[0], element.labels)
    if isinstance(element, np.ndarray):
        return as_tensor(element)
    if type(element) in (tuple, list):
        return tuple(_plain(item) for item in element)
    if type(element) is dict:
        return {name: _plain(item) for name, item in element.items()}
    return map_tensors(element, lambda tensor: tensor.detach().cpu())


def _samples(
    content: Content, model: nn.Module, spec: str, store: Any, seed: int
) -> Samples:
    """Returns samples with the fit that arrays need, and the model's lazy shapes."""
    if store is None:
        store = Read(content.samples, content.skips, seed)
    if len(store) == 0:
        raise CannotLoad("the data set has no sample", hint="is its folder right?")
    found = Samples(
        store=store, model=model, spec=spec, skips=content.skips, notes=content.notes
    )
    first = _first(found)
    if content.arrays:
        fit = fit_arrays(first, model, mode="train")
        found = dataclasses.replace(found, fit=fit, notes=(*found.notes, *fit.notes))
        first = fit.apply(first)
    facts = DataFacts(kind="real", spec=spec, loss="auto", notes=found.notes)
    once = Batches(lambda: iter([first]), facts, labelled=first.labels is not None)
    notes = initialise(model, once, seed=seed).facts.notes
    return dataclasses.replace(found, notes=notes)


def _first(samples: Samples) -> Batch:
    for start in range(0, len(samples), _LOOK_AT):
        rows = torch.arange(start, min(start + _LOOK_AT, len(samples)))
        batch = samples.batch(rows, "first")
        if batch is not None:
            return batch
    raise CannotRun(
        f"none of {len(samples):,} samples can be read", hint="look at the data"
    )
