"""A small residual net for images of 3 × 16 × 16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions with normalization, and the input added to what they make."""

    def __init__(self, width: int, stride: int = 1, grow: int = 1) -> None:
        super().__init__()
        out = width * grow
        self.conv1 = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.way: nn.Module = nn.Identity()
        if stride != 1 or grow != 1:
            self.way = nn.Sequential(
                nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.way(x))


class SmallResNet(nn.Module):
    """A stem, stages that halve the picture and double the channels, and a head."""

    def __init__(self, width: int = 8, stages: int = 2, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = [Block(width)]
        for _ in range(stages):
            blocks += [Block(width, stride=2, grow=2), Block(2 * width)]
            width *= 2
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(y.mean((2, 3)))


def resnet(width: int = 8, stages: int = 2) -> nn.Module:
    """Builds the net that is released."""
    torch.manual_seed(0)
    return SmallResNet(int(width), int(stages))
