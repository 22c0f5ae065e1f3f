"""AdAct's comparison on small VGG nets: fixed against trainable activations.

    python benchmarks/papers/adact_vgg.py --data-root DIR [--seeds 3] [--epochs 4]

DIR holds train/CLASS/*.jpg and test/CLASS/*.jpg of 32 x 32 pixels (CIFAR-10 or a
part of it). Three VGG blocks of one 3 x 3 convolution and 2 x 2 max-pooling, 32, 64
and 128 channels, dense 128, Adam 1e-3, batch 64. All arms of a seed start from the
same weights and see the same batches; PiecewiseLinear starts as ReLU exactly, so the
first forward pass of both is the same. Accuracy on the test images after every
epoch, and the CPU seconds of training: equal epochs are not equal time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vgaudit.nn import PiecewiseLinear

WIDTHS = (32, 64, 128)

ARMS: dict[str, Callable[[int], nn.Module]] = {
    "ReLU": lambda width: nn.ReLU(),
    "LeakyReLU": lambda width: nn.LeakyReLU(0.01),
    "PiecewiseLinear from ReLU": PiecewiseLinear,
    "PiecewiseLinear from leaky": lambda width: PiecewiseLinear(width, start="leaky"),
}


@dataclass
class Curve:
    """Test accuracy and training seconds after every epoch, one list per seed."""

    accuracy: list[list[float]] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)

    def at(self, epoch: int) -> str:
        values = [100 * run[epoch] for run in self.accuracy]
        return f"{statistics.mean(values):.1f} [{min(values):.1f}–{max(values):.1f}]"

    def within(self, seconds: list[float]) -> float:
        """Returns the mean accuracy of the last epochs that end by ``seconds``."""
        reached = []
        for run, ends, limit in zip(self.accuracy, self.seconds, seconds, strict=True):
            done = [a for a, end in zip(run, ends, strict=True) if end <= limit]
            reached.append(done[-1] if done else 0.1)
        return 100 * statistics.mean(reached)


def images(folder: Path, most: int) -> tuple[Tensor, Tensor]:
    """Returns pixels in [0, 1], ``[N, 3, 32, 32]``, and classes; classes take turns."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.iterdir()) for path in classes]
    order = [
        (f[i], c)
        for i in range(max(map(len, files)))
        for c, f in enumerate(files)
        if i < len(f)
    ]
    chosen = order[:most]
    pixels = np.stack(
        [np.asarray(Image.open(path).convert("RGB")) for path, _ in chosen]
    )
    x = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    return x.contiguous(), torch.tensor([label for _, label in chosen])


def network(activation: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            activation(width),
            nn.MaxPool2d(2),
        ]
        channels = width
    dense = nn.Linear(16 * channels, 128)
    return nn.Sequential(
        *layers, nn.Flatten(), dense, activation(128), nn.Linear(128, 10)
    )


def train(
    model: nn.Module, data: tuple[Tensor, ...], seed: int, epochs: int
) -> tuple[list[float], list[float]]:
    x, y, test_x, test_y = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    accuracy, seconds, spent = [], [], 0.0
    for _ in range(epochs):
        start = time.process_time()
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        spent += time.process_time() - start
        with torch.no_grad():
            found = torch.cat([model(part).argmax(1) for part in test_x.split(500)])
        accuracy.append((found == test_y).double().mean().item())
        seconds.append(spent)
    return accuracy, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = (
        *images(options.data_root / "train", options.images),
        *images(options.data_root / "test", 10**9),
    )
    curves = {name: Curve() for name in ARMS}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        first = network(ARMS["ReLU"]).state_dict()
        for name, activation in ARMS.items():
            model = network(activation)
            model.load_state_dict(first, strict=False)
            accuracy, seconds = train(model, data, seed, options.epochs)
            curves[name].accuracy.append(accuracy)
            curves[name].seconds.append(seconds)
            print(f"# seed {seed} {name}: {accuracy}", flush=True)
    report(curves, options.epochs, len(data[0]), len(data[2]))


def report(curves: dict[str, Curve], epochs: int, trained: int, tested: int) -> None:
    relu = curves["ReLU"]
    limit = [run[-1] for run in relu.seconds]
    print(f"\n{trained} training and {tested} test images, torch {torch.__version__}\n")
    heads = " | ".join(f"epoch {n + 1}" for n in range(epochs))
    print(f"| | {heads} | CPU s | in ReLU's CPU time |\n|{'---|' * (epochs + 3)}")
    for name, curve in curves.items():
        cells = " | ".join(curve.at(epoch) for epoch in range(epochs))
        spent = statistics.mean(run[-1] for run in curve.seconds)
        print(f"| {name} | {cells} | {spent:.0f} | {curve.within(limit):.1f} |")


if __name__ == "__main__":
    main()
