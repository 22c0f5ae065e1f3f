"""Normalisation that looks across the samples of a batch."""

from __future__ import annotations

from torch import nn

NORM_NOTE = "batch norm in train mode needs two samples"


def has_batch_norm(model: nn.Module) -> bool:
    """Tells whether a batch of one sample is too small in train mode."""
    kinds = nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, kinds) for module in model.modules())
