"""Batches of random numbers, and labels made up to fit an output."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from vgaudit.data.batch import Batch
from vgaudit.data.batches import Batches
from vgaudit.data.inputs.form import CallForm
from vgaudit.data.inputs.infer import infer_inputs
from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.normed import NORM_NOTE, has_batch_norm
from vgaudit.data.seeding import generator_for
from vgaudit.flow import DataFacts
from vgaudit.job import DataOptions


def synthetic_batches(
    model: nn.Module, hint: object | None, options: DataOptions, *, mode: str = "train"
) -> Batches:
    """Returns standard normal floats and uniform ids in the form the model takes.

    Raises:
        BadConfig: the inputs cannot be inferred, or those given are wrong.
    """
    call = infer_inputs(model, hint, options, mode=mode)
    notes = [f"inputs: {call} ({call.why})"]
    if call.size == 1 and mode == "train" and has_batch_norm(model):
        call = call.sized(2)
        notes.append(f"batch size raised to 2: {NORM_NOTE}")
    facts = DataFacts(
        kind="synthetic",
        spec=f"random {call}",
        loss=options.loss or ("auto" if call.own_loss else "jacobian"),
        notes=tuple(notes),
    )

    def draw() -> Iterator[Batch]:
        for index in range(options.batches):
            yield _batch(call, options.seed, index)

    return Batches(draw, facts, labelled=call.own_loss)


def _batch(call: CallForm, seed: int, index: int) -> Batch:
    args, kwargs = call.draw(generator_for(seed, "batch", index))
    return Batch(
        args=args,
        kwargs=kwargs,
        labels=None if call.own_loss else RandomLabels(seed, index),
        size=call.size,
    )
