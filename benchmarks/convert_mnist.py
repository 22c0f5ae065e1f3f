"""Do conversions make deep sigmoid networks train? Accuracy on MNIST after them.

    python benchmarks/convert_mnist.py --data-root DIR [--depths 10 20] [--seeds 5]

DIR holds ``MNIST/`` as torchvision keeps it. Sigmoid networks of width 64 in
PyTorch's default initialisation, 30,000 training images, batch 128, Adam 1e-3:
untreated, with batch normalization before each activation, with auto-rotation as
published (x_Q = 2·min − max, L = 5, trained, not folded), and after
``vgaudit convert --to rescale``, ``--to ar`` and ``--to adact``. Test accuracy after
each epoch, mean and range over seeds; a Markdown table on standard output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.datasets import MNIST

import vgaudit
from vgaudit.nn import auto_rotate

WIDTH, CLASSES, PIXELS = 64, 10, 784
TRAINING, BATCH, CALIBRATION = 30_000, 128, 4


@dataclass(frozen=True)
class Images:
    """Training and test images in [0, 1], flat, with labels."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """The first batches: what a conversion is calibrated on."""
        pairs = zip(self.x.split(BATCH), self.y.split(BATCH), strict=True)
        return [next(pairs) for _ in range(CALIBRATION)]


def images(root: str) -> Images:
    train, test = MNIST(root, train=True), MNIST(root, train=False)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(train.data), generator=generator)[:TRAINING]

    def flat(data: Tensor) -> Tensor:
        return data.float().view(-1, PIXELS) / 255

    return Images(
        flat(train.data[chosen]), train.targets[chosen], flat(test.data), test.targets
    )


def network(depth: int, seed: int, *, normed: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Linear(WIDTH if number else PIXELS, WIDTH))
        layers += [nn.BatchNorm1d(WIDTH)] * normed
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def untreated(depth: int, seed: int, _data: Images) -> nn.Module:
    return network(depth, seed)


def normalized(depth: int, seed: int, _data: Images) -> nn.Module:
    return network(depth, seed, normed=True)


def published(depth: int, seed: int, _data: Images) -> nn.Module:
    model = network(depth, seed)
    for layer in list(model)[:-1]:
        if isinstance(layer, nn.Linear):
            auto_rotate(layer, limit=5.0, denominator="xq-min", inputs=(0.0, 1.0))
    return model


def converted(to: str) -> Callable[[int, int, Images], nn.Module]:
    def build(depth: int, seed: int, data: Images) -> nn.Module:
        return vgaudit.convert(
            network(depth, seed), to=to, data=data.calibration(), compare=False
        ).model

    return build


ARMS: dict[str, Callable[[int, int, Images], nn.Module]] = {
    "untreated": untreated,
    "batch normalization": normalized,
    "AR as published": published,
    "convert --to rescale": converted("rescale"),
    "convert --to ar": converted("ar"),
    "convert --to adact": converted("adact"),
}


def accuracies(model: nn.Module, data: Images, epochs: int, seed: int) -> list[float]:
    """Returns the test accuracy in % after each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(TRAINING, generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data.x[chosen]), data.y[chosen])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = model(data.test_x).argmax(1) == data.test_y
        found.append(100 * float(right.float().mean()))
    return found


def cell(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.1f} [{min(values):.1f}–{max(values):.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    given = parser.parse_args()
    data = images(given.data_root)
    epochs = " | ".join(f"epoch {n + 1}" for n in range(given.epochs))
    print(f"| layers | network | {epochs} | seconds |", flush=True)
    print("|---" * (given.epochs + 3) + "|", flush=True)
    for depth in given.depths:
        for name in given.arms:
            started = time.perf_counter()
            runs = [
                accuracies(ARMS[name](depth, seed, data), data, given.epochs, seed)
                for seed in range(given.seeds)
            ]
            seconds = (time.perf_counter() - started) / given.seeds
            cells = " | ".join(cell(list(v)) for v in zip(*runs, strict=True))
            print(f"| {depth} | {name} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
