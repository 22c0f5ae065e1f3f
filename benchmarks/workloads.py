"""The five models on which the cost of measuring is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Workload:
    """A model, its input and the gradient at its output."""

    model: nn.Module
    x: Tensor
    cotangent: Tensor


class Encoder(nn.Module):
    """A transformer encoder without dropout; GELU is called as a function."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            256, 4, 1024, activation="gelu", batch_first=True, dropout=0.0
        )
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Reader(nn.Module):
    """Two fused LSTM layers with a linear head at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(256, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(x)[0])
        return out


def resnet18() -> tuple[nn.Module, Tensor]:
    from torchvision.models import resnet18 as build

    return build(), torch.randn(8, 3, 224, 224)


def vgg() -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.Sigmoid()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    return model, torch.randn(64, 3, 32, 32)


def mlp(
    depth: int = 50, width: int = 512, batch: int = 128
) -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(width, 10)), torch.randn(batch, width)


def gpt6() -> tuple[nn.Module, Tensor]:
    return Encoder(), torch.randn(4, 256, 256)


def lstm2() -> tuple[nn.Module, Tensor]:
    return Reader(), torch.randn(32, 64, 256)


WORKLOADS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet18": resnet18,
    "vgg": vgg,
    "mlp50": mlp,
    "gpt6": gpt6,
    "lstm2": lstm2,
}


def wide(dtype: str, width: int, *, layers: int, samples: int) -> Workload:
    """Returns a sigmoid network in one type, made without another copy of it."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model, _ = mlp(layers, width, 1)
        model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=width**-0.5)
    x = torch.randn(samples, width, dtype=getattr(torch, dtype))
    with torch.no_grad():
        out = model.train()(x)
    return Workload(model, x, torch.randn_like(out))


def workload(name: str) -> Workload:
    """Returns a workload, the same one in every process."""
    return prepared(WORKLOADS[name])


def prepared(build: Callable[[], tuple[nn.Module, Tensor]]) -> Workload:
    """Returns a model in train mode with input and cotangent, by a fixed seed."""
    torch.manual_seed(0)
    model, x = build()
    with torch.no_grad():
        out = model.train()(x)
    return Workload(model, x, torch.randn_like(out))
