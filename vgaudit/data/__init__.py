"""Where batches and losses come from."""

from __future__ import annotations

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.batches import Batches
from vgaudit.data.guesses import guesses_told
from vgaudit.data.inputs.infer import infer_inputs
from vgaudit.data.losses import check_labels, resolve_loss, settle, settled
from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.opening import from_object, open_batches

__all__ = [
    "Batch",
    "Batches",
    "Loss",
    "RandomLabels",
    "check_labels",
    "from_object",
    "guesses_told",
    "infer_inputs",
    "open_batches",
    "resolve_loss",
    "settle",
    "settled",
]
