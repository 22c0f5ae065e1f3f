"""Ten real models in small, each with its input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Made = tuple[nn.Module, tuple[Any, ...]]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def tokens(*shape: int, top: int) -> Tensor:
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(7))


def zoo() -> Any:
    """Returns ``torchvision.models``; where it cannot be imported the test skips."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision.models


def resnet18() -> Made:
    return zoo().resnet18(num_classes=10), (noise(3, 3, 32, 32),)


def mobilenet_v3_small() -> Made:
    net = zoo().mobilenet_v3_small(num_classes=10)
    return net, (noise(3, 3, 32, 32),)


def densenet() -> Made:
    """DenseNet with three small blocks: concatenation, memory-hungry wiring."""
    net = zoo().DenseNet(8, (3, 4, 3), 16, num_classes=10)
    return net, (noise(3, 3, 32, 32),)


def squeezenet() -> Made:
    net = zoo().squeezenet1_1(num_classes=10)
    return net, (noise(2, 3, 48, 48),)


def vision_transformer() -> Made:
    net = zoo().VisionTransformer(
        image_size=16, patch_size=4, num_layers=3, num_heads=4, hidden_dim=32,
        mlp_dim=48, num_classes=10,
    )  # fmt: skip
    nn.init.normal_(net.heads.head.weight, std=0.2)
    return net, (noise(3, 3, 16, 16),)


def convnext() -> Made:
    block = zoo().convnext.CNBlockConfig
    net = zoo().ConvNeXt([block(16, 32, 2), block(32, None, 2)], num_classes=10)
    return net, (noise(3, 3, 32, 32),)


def googlenet() -> Made:
    """Three outputs in train mode."""
    net = zoo().googlenet(
        num_classes=10, weights=None, aux_logits=True, init_weights=False
    )
    return net, (noise(2, 3, 64, 64),)


class LanguageModel(nn.Module):
    """Embedding, two LSTM layers, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, given: Tensor) -> Tensor:
        found, _ = self.lstm(self.embedding(given))
        return self.head(self.norm(found))


def lstm() -> Made:
    return LanguageModel(), (tokens(3, 7, top=50),)


def seq2seq() -> Made:
    """Encoder and decoder of torch, both inputs continuous."""
    net = nn.Transformer(16, 4, 2, 2, 32, batch_first=True)
    return net, (noise(3, 6, 16), noise(3, 5, 16))


class UNet(nn.Module):
    """Two scales down and up, with skips by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self._pair(3, 8), self._pair(8, 16)
        self.bottom = self._pair(16, 16)
        self.up2 = nn.ConvTranspose2d(16, 16, 2, stride=2)
        self.join2 = self._pair(32, 8)
        self.up1 = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.join1 = self._pair(16, 8)
        self.head = nn.Conv2d(8, 4, 1)

    @staticmethod
    def _pair(given: int, made: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(given, made, 3, padding=1), nn.GroupNorm(2, made),
            nn.SiLU(inplace=True), nn.Conv2d(made, made, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        low = self.bottom(F.max_pool2d(two, 2))
        two = self.join2(torch.cat([self.up2(low), two], 1))
        return self.head(self.join1(torch.cat([self.up1(two), one], 1)))


def unet() -> Made:
    return UNet(), (noise(2, 3, 16, 16),)


class Functional(nn.Module):
    """Only parameters and functions, no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.3 * noise(6, 2, 3, 3))
        self.first = nn.Parameter(0.3 * noise(12, 6 * 16))
        self.second = nn.Parameter(0.3 * noise(12, 5))
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, padding=1).relu_()
        x = torch.sigmoid(F.linear(x.flatten(1), self.first))
        return F.elu(torch.addmm(self.bias, x, self.second))


def functional() -> Made:
    return Functional(), (noise(3, 2, 4, 4),)


def _seeded(make: Callable[[], Made]) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make()


ZOO: dict[str, Callable[[], Made]] = {
    make.__name__: partial(_seeded, make)
    for make in (
        resnet18,
        mobilenet_v3_small,
        densenet,
        squeezenet,
        vision_transformer,
        convnext,
        googlenet,
        lstm,
        seq2seq,
        unet,
        functional,
    )
}
"""Name → makes the model and its input, the same on every call."""
