"""A callback for Lightning's ``Trainer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vgaudit.errors import BadConfig
from vgaudit.findings import FailOn
from vgaudit.integrations.steps import Audited, UnhealthyGradient
from vgaudit.judge import Policy

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback

__all__ = ["GradientAudit", "UnhealthyGradient"]


class GradientAudit(Audited, Callback):  # type: ignore[misc]
    """Measures every n-th step, logs the figures, and judges them.

    ::

        Trainer(callbacks=[GradientAudit(every=100, report="gradients.html")])

    The training is that without it, bit for bit. Figures go to every logger of the
    trainer and to ``trainer.callback_metrics``, so that ``EarlyStopping`` can look at
    ``vgaudit/attenuation``. Under ``precision="16-mixed"`` gradients are stated
    without the scale of the loss. Each rank measures its own batches; that of rank 0
    is logged and written.

    Args:
        every: measure every n-th optimizer step.
        policy: how to judge; without it by the defaults, for the optimizer that trains.
        fail_on: stop the training at a finding of this level.
        report: a file for the last verdict: .html, .json, .md, .txt or .csv.
        module: name of the submodule that ``training_step`` calls; without it the only
            one that there is, or the ``LightningModule`` itself.

    Raises:
        BadConfig: an argument does not fit.
    """

    def __init__(
        self,
        *,
        every: int = 100,
        policy: Policy | None = None,
        fail_on: FailOn | None = None,
        report: str | Path | None = None,
        module: str = "",
    ) -> None:
        super().__init__(every=every, policy=policy, fail_on=fail_on, report=report)
        self._module = module
        self._opened = -1

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Begins a new history."""
        self._begin(chief=trainer.is_global_zero)
        self._opened = -1

    def on_train_batch_start(
        self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int
    ) -> None:
        """Begins to measure, at the first batch of a step that is due."""
        if trainer.global_step != self._opened:
            self._opened = trainer.global_step
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._steps.open(self._watched(pl_module), self._opened, scaler)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: nn.Module,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Judges, when the last batch of the step is done."""
        if trainer.global_step == self._opened:
            return
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        figures = self._steps.close(self._opened, optimizer)
        if not figures:
            return
        trainer.callback_metrics.update(
            {name: torch.tensor(value) for name, value in figures.items()}
        )
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
        self._steps.check()

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Writes the report."""
        self._steps.finish()

    def on_exception(
        self, trainer: Any, pl_module: nn.Module, exception: BaseException
    ) -> None:
        """Removes the hooks."""
        self._steps.abandon()

    def _watched(self, module: nn.Module) -> nn.Module:
        if self._module:
            try:
                return module.get_submodule(self._module)
            except AttributeError as error:
                names = [name for name, _ in module.named_children()]
                raise BadConfig(
                    f"{type(module).__name__} has no module {self._module!r}",
                    hint=f"it has {', '.join(names) or 'none'}",
                ) from error
        owners = {
            name.partition(".")[0]
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        only = getattr(module, owners.pop()) if len(owners) == 1 else module
        callable_one = isinstance(only, nn.Module) and not isinstance(
            only, (nn.ModuleList, nn.ModuleDict)
        )
        return only if callable_one else module
