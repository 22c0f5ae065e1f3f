"""Nets and batches that the tests of deep and static scans share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.flow import DeepFlow, GradientFlow
from vgaudit.job import ProbeOptions
from vgaudit.probe import probe


def mlp(
    depth: int, width: int, act: type[nn.Module], *, seed: int = 0
) -> nn.Sequential:
    """Returns ``depth`` hidden layers in PyTorch's initialisation, and a head."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def he(model: nn.Sequential) -> nn.Sequential:
    """Gives every linear layer He's initialisation and no bias."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model


def normal(*shape: int, seed: int = 0, double: bool = False) -> Tensor:
    """Returns standard normal values."""
    values = torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return values if double else values.float()


def batch(*args: Tensor, labels: Tensor | None = None) -> Batch:
    """Returns one call of a model."""
    return Batch(args=args, labels=labels, size=args[0].shape[0])


def scanned(
    model: nn.Module, *batches: Batch, loss: Loss | None = None, **options: object
) -> GradientFlow:
    """Returns the flow of a deep scan, and checks that no part of it failed."""
    asked = ProbeOptions(deep=True, **options)  # type: ignore[arg-type]
    flow = probe(model, batches, loss=loss, options=asked)
    assert flow.deep is not None
    assert flow.deep.not_measured == ()
    return flow


def deep(model: nn.Module, *batches: Batch, **options: object) -> DeepFlow:
    """Returns the deep part of a scan."""
    found = scanned(model, *batches, **options).deep  # type: ignore[arg-type]
    assert found is not None
    return found
