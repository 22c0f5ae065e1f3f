"""A first look before a training: what does not fit is told with the data's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vgaudit import data
from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import check_labels
from vgaudit.data.losses.outputs import main_output
from vgaudit.data.seeding import private_random
from vgaudit.errors import CannotRun
from vgaudit.plain import visible
from vgaudit.probe.state import untouched
from vgaudit.training.metrics import forward
from vgaudit.training.samples import Kept
from vgaudit.training.split import Feed
from vgaudit.training.weights import same_buffers


def first_pass(model: nn.Module, batch: Batch, device: torch.device) -> tuple[Any, Any]:
    """Returns output and labels of one batch, in eval mode; the model stays as it is.

    Raises:
        CannotRun: the model fails.
    """
    with untouched(model, device), private_random(), same_buffers(model):
        model.eval()
        return forward(model, batch, device)


def check_validation(
    fed: Feed, model: nn.Module, loss: Loss, device: torch.device
) -> None:
    """Refuses validation samples of their own that the model or the loss cannot take.

    Of samples in memory every class label is looked at, else those of one batch.

    Raises:
        CannotRun: names the data and what does not fit.
    """
    batches = iter(() if fed.valid is fed.train else fed.validation())
    first = next(batches, None)
    if first is None:
        return
    what = f"the validation data {visible(fed.valid.spec)}"
    with data.guesses_told(fed.valid.notes), naming(what), torch.no_grad():
        output, labels = first_pass(model, first, device)
        check_labels(output, labels, loss)
        given = main_output(output)
        if given is None or not isinstance(fed.valid.store, Kept):
            return
        for batch in batches:
            if batch.size <= len(given):
                check_labels(given[: batch.size].cpu(), batch.labels, loss)


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Names the data in what is told of it."""
    try:
        yield
    except CannotRun as error:
        error.message = f"{what}: {error.message}"
        error.args = (error.message,)
        raise
