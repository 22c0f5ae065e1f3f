"""RAI in mini-batches with targets: stored for every sample, or inferred.

Both train on the relaxed loss and report that of the ordinary forward pass; at the
end of each epoch the relaxation gap is measured on the first training batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from vgaudit.data.batch import Batch
from vgaudit.training.gradient import GradientTraining, split, weighed
from vgaudit.training.method import Setup, StepOutcome
from vgaudit.training.rai.gap import forward_loss, measure_gap
from vgaudit.training.rai.minibatch import Inference, TargetTable
from vgaudit.training.rai.relaxed import Relaxation
from vgaudit.training.rai.settings import RaiSettings


class TargetTraining(GradientTraining, ABC):
    """What both have in common: the relaxation gap of each epoch."""

    def __init__(
        self, setup: Setup, optimizer: Optimizer, relaxation: Relaxation
    ) -> None:
        super().__init__(setup, optimizer, figures=self._gap)
        self._relaxation = relaxation
        self._example = setup.example
        self._parts = setup.options.accumulate

    def _backward(self, batch: Batch, parts: int, weight: float) -> float:
        self._parts = parts
        total, start = 0.0, 0
        pieces, whole = weighed(self._setup.loss, batch, parts)
        for part, count in pieces:
            share = weight * part.size / batch.size
            more = count * batch.size / (whole * part.size) if whole else 1.0
            with self._relaxation.emphasising(more):
                total += share * self._relaxed(part, start, share)
            start += part.size
        return total

    @abstractmethod
    def _relaxed(self, part: Batch, start: int, share: float) -> float:
        """Adds the gradients of a part that begins at a row; returns the loss."""

    @abstractmethod
    def _targets(self, part: Batch) -> Sequence[Tensor] | None:
        """Returns the targets of the example's first samples, if there are any yet."""

    def _gap(self) -> dict[str, float]:
        # In parts where steps are: what one step needs, memory has room for.
        part = next(split(self._example, self._parts))
        targets = self._targets(part)
        if targets is None:
            return {}
        return measure_gap(self._relaxation, part, targets).figures


class TableTraining(TargetTraining):
    """Mini-batches with a stored target for every sample and cut."""

    def __init__(
        self,
        setup: Setup,
        optimizer: Optimizer,
        relaxation: Relaxation,
        own: RaiSettings,
    ) -> None:
        super().__init__(setup, optimizer, relaxation)
        self._table = TargetTable(relaxation, setup.example, rate=own.rate)
        self._rows: Tensor | None = None
        # The example is the batch of the first step: its rows come with that.
        self._looked: Tensor | None = None
        self._forward_loss = math.nan

    def step(
        self, batch: Batch, *, rows: Tensor, parts: int, weight: float = 1.0
    ) -> StepOutcome:
        """Moves the targets of the batch, then takes one optimizer step."""
        before = self._table.state_of(rows)
        self._rows, self._forward_loss = rows, 0.0
        self._looked = rows.clone() if self._looked is None else self._looked
        try:
            outcome = super().step(batch, rows=rows, parts=parts, weight=weight)
        except BaseException:
            self._table.put_back(rows, before)
            raise
        if outcome.skipped:
            self._table.put_back(rows, before)
            return outcome
        return replace(outcome, loss=self._forward_loss)

    def _relaxed(self, part: Batch, start: int, share: float) -> float:
        assert self._rows is not None
        self._forward_loss += share * forward_loss(self._relaxation, part)
        rows = self._rows[start : start + part.size]
        return float(self._table.backward(part, rows, share=share))

    def _targets(self, part: Batch) -> Sequence[Tensor] | None:
        if self._looked is None:
            return None
        return self._table.targets(part, self._looked[: part.size])

    def _gap(self) -> dict[str, float]:
        return {**super()._gap(), "target table, MB": self._table.bytes / 1e6}

    def state_dict(self) -> dict[str, Any]:
        """Returns the optimizer's state and the table."""
        own = {"table": self._table.state_dict(), "looked": self._looked}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        super().load_state_dict(state)
        self._table.load_state_dict(state["table"])
        self._looked = state.get("looked")


class InferenceTraining(TargetTraining):
    """Mini-batches with targets that are found anew for each."""

    def __init__(
        self,
        setup: Setup,
        optimizer: Optimizer,
        relaxation: Relaxation,
        own: RaiSettings,
    ) -> None:
        super().__init__(setup, optimizer, relaxation)
        self._inference = Inference(
            relaxation, setup.example, steps=own.inner, rate=own.rate
        )

    def _relaxed(self, part: Batch, _start: int, share: float) -> float:
        return float(self._inference.backward(part, share=share))

    def _targets(self, part: Batch) -> Sequence[Tensor]:
        return self._inference.targets(part)
