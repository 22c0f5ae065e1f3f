"""A callback for the ``Trainer`` of Hugging Face transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from vgaudit.findings import FailOn
from vgaudit.integrations.steps import Audited, UnhealthyGradient
from vgaudit.judge import Policy

__all__ = ["GradientAudit", "UnhealthyGradient"]


class GradientAudit(Audited, TrainerCallback):  # type: ignore[misc]
    """Measures every n-th step, logs the figures, and judges them.

    ::

        trainer = Trainer(model, args, train_dataset=data)
        trainer.add_callback(GradientAudit(trainer, every=100))

    The training is that without it, bit for bit. Figures go through ``trainer.log``,
    so to its history and to everything in ``report_to``. Under ``fp16`` gradients are
    stated without the scale of the loss. Each rank measures its own batches; that of
    rank 0 is logged and written.

    Args:
        trainer: through which figures are logged; None logs nothing.
        every: measure every n-th optimizer step.
        policy: how to judge; without it by the defaults, for the optimizer that trains.
        fail_on: stop the training at a finding of this level.
        report: a file for the last verdict: .html, .json, .md, .txt or .csv.

    Raises:
        BadConfig: an argument does not fit.
    """

    def __init__(
        self,
        trainer: Any = None,
        *,
        every: int = 100,
        policy: Policy | None = None,
        fail_on: FailOn | None = None,
        report: str | Path | None = None,
    ) -> None:
        super().__init__(every=every, policy=policy, fail_on=fail_on, report=report)
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begins a new history."""
        self._begin(chief=state.is_world_process_zero)

    def on_step_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **rest: Any
    ) -> None:
        """Begins to measure, at the first batch of a step that is due."""
        scaler = getattr(rest.get("optimizer"), "scaler", None)
        # A compiled model must be known as such, to run eagerly while it is measured.
        wrapped = getattr(self._trainer, "model_wrapped", None)
        given = wrapped if isinstance(wrapped, nn.Module) else model
        self._steps.open(given, state.global_step, scaler)

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, optimizer: Any = None, **_: Any
    ) -> None:
        """Judges, when the last batch of the step is done."""
        figures = self._steps.close(state.global_step - 1, optimizer)
        if not figures:
            return
        if self._trainer is not None and state.is_world_process_zero:
            self._trainer.log(figures)
        self._steps.check()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the report."""
        self._steps.finish()
