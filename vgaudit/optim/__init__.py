"""Optimizers for networks whose gradients vanish, and their control.

Usable alone in any training loop::

    optimizer = SDAGD(model.named_parameters())
    scheduler = warmup_linear_decay(optimizer, total_steps)
"""

from vgaudit.optim.centered_adam import CenteredAdam
from vgaudit.optim.phase import LayerPhase
from vgaudit.optim.schedule import warmup_linear_decay
from vgaudit.optim.sdagd import SDAGD

__all__ = ["SDAGD", "CenteredAdam", "LayerPhase", "warmup_linear_decay"]
