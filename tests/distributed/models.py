"""Models whose scans are spread over ranks, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss


class Tokens(nn.Module):
    """A small transformer: embedding, two blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 17)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.embed(ids)))
        return out


class Branching(nn.Module):
    """Takes another way for every second batch: two graphs in one scan."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.first(x))
        if x[0, 0] > 0:
            out = torch.tanh(self.second(out))
        return self.head(out)


def build(name: str) -> nn.Module:
    torch.manual_seed(3)
    if name == "resnet18":
        import torchvision

        return torchvision.models.resnet18(num_classes=10)
    if name == "transformer":
        return Tokens()
    if name == "branching":
        return Branching()
    depth, kind = (40, nn.Sigmoid) if name == "deep" else (4, nn.ReLU)
    layers = [m for _ in range(depth) for m in (nn.Linear(12, 12), kind())]
    net = nn.Sequential(*layers, nn.Linear(12, 5))
    if name == "zeroed":
        nn.init.zeros_(net[-1].weight)
    return net


def batches(name: str, count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(11)
    return [_batch(name, generator) for _ in range(count)]


def _batch(name: str, generator: torch.Generator) -> Batch:
    if name == "transformer":
        ids = torch.randint(17, (3, 7), generator=generator)
        return Batch(args=(ids,), labels=ids, size=3)
    shape = {"resnet18": (2, 3, 32, 32), "branching": (4, 6)}.get(name, (6, 12))
    classes = {"resnet18": 10, "branching": 2}.get(name, 5)
    x = torch.randn(shape, generator=generator)
    labels = torch.randint(classes, (shape[0],), generator=generator)
    return Batch(args=(x,), labels=labels, size=shape[0])


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, -2), labels.flatten())


CROSS_ENTROPY = Loss("cross-entropy", _cross_entropy)
