"""Activations and VGG nets that the AdAct studies compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.papers.pictures import Images
from vgaudit.nn import PiecewiseLinear

WIDTHS = (32, 64, 128)


class Apl(nn.Module):
    """An adaptive piecewise linear unit: ReLU plus ``pieces`` trainable hinge terms.

    y = max(0, x) + Σ_s a_s · max(0, b_s − x), with a and b per channel, a small and b
    normal at the start. Its formula is printed in the AdAct paper, whose own unit it
    is not.

    Source: Agostinelli et al., Learning activation functions to improve deep neural
    networks, 2015; there with one or two pieces.
    """

    def __init__(self, channels: int, pieces: int = 2) -> None:
        super().__init__()
        self.slopes = nn.Parameter(0.01 * torch.randn(pieces, channels))
        self.hinges = nn.Parameter(torch.randn(pieces, channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        y = torch.relu(x)
        for slope, hinge in zip(self.slopes, self.hinges, strict=True):
            y = y + slope.view(shape) * torch.relu(hinge.view(shape) - x)
        return y


ARMS: dict[str, Callable[[int], nn.Module]] = {
    "ReLU": lambda width: nn.ReLU(),
    "LeakyReLU": lambda width: nn.LeakyReLU(0.01),
    "PReLU": nn.PReLU,
    "APL": Apl,
    "PiecewiseLinear from ReLU": PiecewiseLinear,
    "PiecewiseLinear from leaky": lambda width: PiecewiseLinear(width, start="leaky"),
}


def vgg(arm: str, blocks: int, *, convs: int, classes: int = 10) -> nn.Sequential:
    """Returns a net of ``blocks`` VGG blocks for 32 × 32 colour images.

    Each block is ``convs`` 3 × 3 convolutions with activation and a 2 × 2 pooling;
    then dense 128, activation, output.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS[:blocks]:
        for _ in range(convs):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers.append(ARMS[arm](width))
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), *head(arm, channels * (32 >> blocks) ** 2, classes)]
    return nn.Sequential(*layers)


def head(arm: str, features: int, classes: int) -> list[nn.Module]:
    """Returns the dense layers: 128, activation, output."""
    return [nn.Linear(features, 128), ARMS[arm](128), nn.Linear(128, classes)]


def start_(model: nn.Module, seed: int) -> None:
    """Sets Glorot-normal weights and zero biases; the same for all activations."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Returns the accuracy in percent."""
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in x.split(500)])
    return 100 * (found == y).double().mean().item()


def split_classes(images: Images, classes: range) -> Images:
    """Returns the images of some classes, labels counted from 0."""

    def chosen(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = (y >= classes.start) & (y < classes.stop)
        return x[rows], y[rows] - classes.start

    train = chosen(images.train, images.train_labels)
    return Images(*train, *chosen(images.test, images.test_labels))


def _weighted(model: nn.Module) -> Iterator[nn.Module]:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield layer
