"""Opening data: from a spec, from Python objects, or made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.data.batches import Batches
from vgaudit.data.calls import takes_members, to_batch
from vgaudit.data.fitting import fit_arrays
from vgaudit.data.images import Taker, prepare_images
from vgaudit.data.inputs.signature import describe
from vgaudit.data.lazy import initialise
from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.normed import NORM_NOTE, has_batch_norm
from vgaudit.data.sampling import sampling
from vgaudit.data.sources import open_source
from vgaudit.data.sources.content import Content
from vgaudit.data.sources.factory import content_of
from vgaudit.data.sources.rows import Rows
from vgaudit.data.streams import Stream
from vgaudit.data.synthetic import synthetic_batches
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.flow import DataFacts
from vgaudit.job import DataOptions
from vgaudit.plain import visible

Draw = Callable[[], Iterator[Batch]]


def open_batches(
    model: nn.Module,
    options: DataOptions,
    hint: object | None = None,
    *,
    mode: str = "train",
) -> Batches:
    """Returns the batches that ``options`` ask for, made to fit ``model``.

    Args:
        model: is left as it is, but for lazy modules, which get their shapes
            from a first batch.
        options: the data spec, the inputs, how many batches and of which size.
        hint: what the loader knows: an object with ``inputs`` (each with
            ``shape``, ``name``, ``dtype``, ``high``) and ``source``.
        mode: in which the model will run; detectors take targets in train mode.

    Raises:
        BadConfig: the inputs cannot be inferred, or an option is wrong.
        UnknownSource: no source understands the data spec.
        CannotLoad: the data is missing, refused or damaged.
        NothingMeasured: while iterating, if no batch is usable.
    """
    _check_counts(options)
    size = agreed_size(options.batch_size, only_size(hint))
    options = dataclasses.replace(options, batch_size=size)
    if options.data is None:
        batches = synthetic_batches(model, hint, options, mode=mode)
    else:
        content = open_source(options.data, seed=options.seed)
        if content.images is not None:
            taker = Taker(model=model, hint=hint, options=options, mode=mode)
            samples, notes = prepare_images(content.images, taker)
            content = dataclasses.replace(
                content, images=None, samples=samples, notes=(*content.notes, *notes)
            )
        elif options.inputs:
            raise BadConfig(
                "--input and --data exclude each other, but for images",
                hint="--input makes up random inputs; --data brings its own",
            )
        spec = visible(options.data)
        batches = _from_content(content, model, options, spec, mode=mode)
    return initialise(model, batches, seed=options.seed)


def from_object(
    data: Any,
    options: DataOptions,
    *,
    model: nn.Module | None = None,
    mode: str = "train",
) -> Batches:
    """Returns the batches that a Python object holds.

    A tensor, tuple or dict is one batch, a list is several; a ``DataLoader`` or
    another iterable gives the first ``options.batches``; a ``Dataset`` is sampled.
    With ``model``, tuples and dicts follow the signature of its ``forward``.

    Raises:
        CannotLoad: the object is no data, or fails.
        CannotRun: a batch does not fit the signature.
        NothingMeasured: while iterating, if no batch is usable.
    """
    _check_counts(options)
    if isinstance(data, Batches):
        return data
    name = f"the data of type {type(data).__name__}"
    one = isinstance(data, (Tensor, np.ndarray, Mapping, tuple, Batch))
    content = Content(stream=[data]) if one else content_of(data, name)
    spec = f"Python object of type {type(data).__name__}"
    batches = _from_content(content, model, options, spec, mode=mode)
    return batches if model is None else initialise(model, batches, seed=options.seed)


def only_size(hint: object | None) -> int | None:
    """Returns the batch size of a program that takes no other, else None."""
    only: int | None = getattr(hint, "batch", None)
    return only


def agreed_size(asked: int | None, only: int | None) -> int | None:
    """Returns the batch size that is asked for, or that is the only one.

    Raises:
        BadConfig: they differ.
    """
    if only is None or asked in (None, only):
        return only or asked
    raise BadConfig(
        f"the model was exported for batches of {only}, not of {asked}",
        hint=f"leave --batch-size out, or give --batch-size {only}",
    )


def _check_counts(options: DataOptions) -> None:
    counts = (
        ("number of batches", options.batches),
        ("batch size", options.batch_size),
    )
    for name, value in counts:
        if value is not None and value < 1:
            raise BadConfig(f"the {name} is {value}", hint="it must be 1 or more")


def _from_content(
    content: Content,
    model: nn.Module | None,
    options: DataOptions,
    spec: str,
    *,
    mode: str,
) -> Batches:
    draw, notes = _calls(content, model, options, mode=mode)
    first = next(draw(), None)
    labelled = first is not None and first.labels is not None
    alone = first is not None and first.size == 1 and mode == "train"
    if alone and model is not None and has_batch_norm(model):
        notes = (*notes, f"batches of one sample: {NORM_NOTE}")
    facts = DataFacts(
        kind="real",
        spec=spec,
        loss=options.loss or ("auto" if labelled else "jacobian"),
        notes=(*content.notes, *notes),
    )
    draw = draw if labelled else _with_random_labels(draw, options.seed)
    return Batches(draw, facts, labelled=labelled, skips=content.skips)


def _calls(
    content: Content, model: nn.Module | None, options: DataOptions, *, mode: str
) -> tuple[Draw, tuple[str, ...]]:
    """Returns the model's calls, and what is done to make them fit."""
    source: Any
    if content.samples is not None:
        source = sampling(
            content.samples, content.skips, options, model=model, mode=mode
        )
        notes = source.notes
    else:
        source, notes = Stream(content.stream or (), options), ()
    keep_labels = options.loss != "jacobian"

    def calls() -> Iterator[Batch]:
        for element in source.draw():
            yield to_batch(element, model, keep_labels=keep_labels)

    if not content.arrays or model is None:
        return calls, notes
    _check_names(content, model)
    first = next(calls(), None)
    if first is None:
        return calls, notes
    fit = fit_arrays(first, model, mode=mode)
    return lambda: map(fit.apply, calls()), (*notes, *fit.notes)


def _with_random_labels(draw: Draw, seed: int) -> Draw:
    """Lets a loss be asked for although the data has no labels."""

    def labelled() -> Iterator[Batch]:
        for index, batch in enumerate(draw()):
            yield dataclasses.replace(batch, labels=RandomLabels(seed, index))

    return labelled


def _check_names(content: Content, model: nn.Module) -> None:
    """Refuses arrays that are neither x nor y nor arguments of the model."""
    if not isinstance(content.samples, Rows) or "" in content.samples.inputs:
        return
    names = content.samples.inputs
    if not takes_members(model, names):
        raise CannotLoad(
            f"cannot tell the inputs among the arrays {', '.join(sorted(names))}",
            hint=f"name them x and y, or as in {describe(model)}",
        )
