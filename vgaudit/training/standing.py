"""Where a run stands between two steps: all that the loop itself must remember."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vgaudit.retraining import Epoch, LayerGradient
from vgaudit.training.method import Scores


@dataclass(slots=True, kw_only=True)
class Standing:
    """The counters of a run.

    Attributes:
        parts: parts in which a batch is computed.
        epoch: current epoch, from 1. position: steps done in it.
        taken: optimizer steps, all epochs together.
        skipped: steps left out in this epoch. in_row: up to now, without a break.
        defect: why the last one was left out.
        loss_sum, seen: sum of this epoch's losses, and how many there are: one for
            each label that counts, or for each sample.
        spent: seconds of this epoch before this process.
        best, scores, kept: the best epoch, how good it was, and its weights.
        stopped: why the run ended early, or empty.
        done: the record. notes: statements for the user.
    """

    parts: int
    epoch: int = 1
    position: int = 0
    taken: int = 0
    skipped: int = 0
    in_row: int = 0
    defect: str = ""
    loss_sum: float = 0.0
    seen: float = 0
    spent: float = 0.0
    best: int = 0
    scores: Scores | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""
    done: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float | None:
        """Mean loss of this epoch so far."""
        return self.loss_sum / self.seen if self.seen else None

    def take(self, loss: float, counts: float) -> None:
        """Counts a step that was taken.

        Args:
            loss: its mean.
            counts: what that is the mean over.
        """
        self.in_row = 0
        self.taken += 1
        if math.isfinite(loss):
            self.loss_sum += loss * counts
            self.seen += counts

    def skip(self, defect: str) -> None:
        """Counts a step that was left out."""
        self.skipped += 1
        self.in_row += 1
        self.defect = defect

    def left_out(self) -> Iterator[str]:
        """Yields what to say of steps that were left out, and of losses."""
        skipped = sum(epoch.skipped for epoch in self.done) + self.skipped
        if skipped:
            whole = skipped + self.taken
            yield f"{skipped} of {whole} steps were left out; the last: {self.defect}"
        losses = [e.valid_loss for e in self.done if e.valid_loss is not None]
        if losses and not any(map(math.isfinite, losses)):
            kept = "what the method ends with" if self.best else "the model as it came"
            yield f"no epoch has a finite validation loss: {kept} is kept"

    def close(self, epoch: Epoch) -> None:
        """Adds a finished epoch to the record and clears what counts one."""
        self.done.append(epoch)
        self.loss_sum, self.seen, self.skipped, self.spent = 0.0, 0, 0, 0.0

    def is_better(self, scores: Scores | None) -> bool:
        """Tells whether scores are the best so far; without any the last are.

        An epoch whose loss is not finite never is: epoch 0 stays, whatever its loss.
        """
        if scores is None or self.scores is None:
            return True
        if not math.isfinite(scores.loss):
            return False
        return _rank(scores) > _rank(self.scores)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as plain values and tensors."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        scores = None if self.scores is None else dataclasses.asdict(self.scores)
        done = [dataclasses.asdict(epoch) for epoch in self.done]
        return {**plain, "scores": scores, "done": done, "notes": list(self.notes)}


def restored(state: Mapping[str, Any]) -> Standing:
    """Returns what ``state_dict`` wrote down."""
    scores = state["scores"]
    return Standing(
        **{
            **state,
            "scores": None if scores is None else Scores(**scores),
            "done": [epoch_of(values) for values in state["done"]],
            "notes": list(state["notes"]),
        }
    )


def epoch_of(values: Mapping[str, Any]) -> Epoch:
    """Returns an epoch from its plain values."""
    layers = tuple(LayerGradient(**layer) for layer in values["layers"])
    return Epoch(**{**values, "layers": layers})


def _rank(scores: Scores) -> tuple[bool, float, float]:
    """Returns what orders epochs: a model whose loss is not finite is behind all."""
    metric = scores.metric
    known = metric is not None and math.isfinite(metric)
    sound = math.isfinite(scores.loss)
    loss = scores.loss if sound else math.inf
    return (sound, metric if known and metric is not None else -math.inf, -loss)
