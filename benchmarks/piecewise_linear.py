"""What PiecewiseLinear costs beside ReLU: time and saved memory.

    python benchmarks/piecewise_linear.py [--rounds 41] [--hinges 9 33 129] [--steps]

Forward and backward on one (64, 32, 32, 32) float32 tensor and one CPU thread. In
each round every candidate runs once, in shuffled order; a figure is the median over
rounds of (its CPU time / ReLU's in the same round). The second ReLU is the A/A row:
what it is away from 1 is what the others cannot say. The gradient of the values is
computed too.

--steps measures whole training steps (Adam, forward, backward) instead, of a 10 x 64
MLP and of three VGG blocks, auto-rotated layers beside them.

"Saved" is what stays in memory between forward and backward; ReLU saves its output.

glibc gives large blocks back to the system at once, which costs whoever allocates;
run with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184
MALLOC_TOP_PAD_=67108864 to measure the activations and not the heap.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy, interpolate

from vgaudit.nn import Grid, PiecewiseLinear, auto_rotate, fold_

SHAPE = (64, 32, 32, 32)


class Gathered(nn.Module):
    """The same function by plain operations and autograd, for comparison."""

    def __init__(self, hinges: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.linspace(-4, 4, hinges).tanh().repeat(32, 1))
        self.step, self.count = 8 / (hinges - 1), hinges

    def forward(self, x: Tensor) -> Tensor:
        u = (x + 4) / self.step
        m = u.detach().floor().clamp(0, self.count - 2)
        index = m.long() + self.count * torch.arange(32).view(1, -1, 1, 1)
        left = self.values.flatten()[index]
        right = self.values.flatten()[index + 1]
        return left + (u - m) * (right - left)


@dataclass
class Candidate:
    """One activation on one input."""

    name: str
    function: Callable[[Tensor], Tensor]
    x: Tensor
    wanted: tuple[Tensor, ...]
    seconds: list[float] = field(default_factory=list)

    def run(self, grad: Tensor) -> None:
        start = time.process_time()
        torch.autograd.grad(self.function(self.x), self.wanted, grad)
        self.seconds.append(time.process_time() - start)


def candidates(hinges: list[int], noise: Tensor, smooth: Tensor) -> list[Candidate]:
    made = [
        Candidate(name, torch.relu, noise, (noise,)) for name in ("ReLU", "ReLU again")
    ]
    for count in hinges:
        grid = Grid.uniform(-4, 4, count)
        lines = {
            f"per channel, H = {count}": PiecewiseLinear(32, start="tanh", grid=grid),
            f"per layer, H = {count}": PiecewiseLinear(start="tanh", grid=grid),
        }
        for name, line in lines.items():
            made.append(Candidate(name, line, noise, (noise, line.values)))
    line = PiecewiseLinear(32)
    made.append(Candidate("start from ReLU, H = 9", line, noise, (noise, line.values)))
    made.append(Candidate("smooth images, H = 9", line, smooth, (smooth, line.values)))
    uneven = Grid.at([-4.0, -2.5, -1.0, -0.3, 0.0, 0.5, 1.0, 2.2, 4.0])
    line = PiecewiseLinear(32, start="tanh", grid=uneven)
    made.append(Candidate("uneven hinges, H = 9", line, noise, (noise, line.values)))
    plain = Gathered(9)
    made.append(Candidate("autograd with gather", plain, noise, (noise, plain.values)))
    return made


def saved_megabytes(candidate: Candidate) -> float:
    """Returns what is kept between forward and backward, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = candidate.function(candidate.x)
    del y
    return sum(kept.values()) / 1e6


def mlp(activation: Callable[[int], nn.Module]) -> nn.Sequential:
    sizes = [784, *[64] * 10]
    pairs = [(nn.Linear(a, b), activation(b)) for a, b in pairwise(sizes)]
    return nn.Sequential(*[part for pair in pairs for part in pair], nn.Linear(64, 10))


def vgg(activation: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise([3, 32, 64, 128]):
        layers += [nn.Conv2d(a, b, 3, padding=1), activation(b), nn.MaxPool2d(2)]
    dense = nn.Linear(2048, 128), activation(128), nn.Linear(128, 10)
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def rotated(model: nn.Sequential) -> nn.Sequential:
    for layer in list(model)[:-1]:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            fold_(auto_rotate(layer))
    return model


def training_steps(rounds: int) -> None:
    nets = {
        "10 x 64 MLP, batch 128": (mlp, torch.rand(128, 784)),
        "3 VGG blocks, batch 64": (vgg, torch.rand(64, 3, 32, 32)),
    }
    print("| step of | | × plain | ms |\n|---|---|---|---|")
    for name, (make, x) in nets.items():
        labels = torch.randint(0, 10, (len(x),))
        plain = nn.Sigmoid if make is mlp else nn.ReLU
        models = {
            "plain": make(lambda width, kind=plain: kind()),
            "plain again": make(lambda width, kind=plain: kind()),
            "auto-rotated": rotated(make(lambda width, kind=plain: kind())),
            "PiecewiseLinear per channel": make(PiecewiseLinear),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in models}
        optimizers = {
            kind: torch.optim.Adam(model.parameters()) for kind, model in models.items()
        }
        for turn in range(rounds + 2):
            for kind in random.sample(list(models), len(models)):
                start = time.process_time()
                optimizers[kind].zero_grad()
                cross_entropy(models[kind](x), labels).backward()
                optimizers[kind].step()
                if turn > 1:
                    seconds[kind].append(time.process_time() - start)
        for kind, spent in seconds.items():
            pairs = zip(spent, seconds["plain"], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            ms = 1e3 * statistics.median(spent)
            print(f"| {name} | {kind} | {ratio:.2f} | {ms:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--hinges", type=int, nargs="+", default=[9, 33, 129])
    parser.add_argument("--steps", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.steps:
        training_steps(options.rounds)
        return
    noise = torch.randn(SHAPE, requires_grad=True)
    smooth = interpolate(torch.randn(64, 32, 5, 5), size=(32, 32), mode="bicubic")
    rows = candidates(options.hinges, noise, smooth.requires_grad_())
    grad = torch.randn(SHAPE)
    for turn in range(options.rounds + 2):
        for row in random.sample(rows, len(rows)):
            row.run(grad)
        if turn == 1:  # the first two rounds warm up
            for row in rows:
                row.seconds.clear()
    report(rows)


def report(rows: list[Candidate]) -> None:
    relu = rows[0].seconds
    print(f"torch {torch.__version__}, {SHAPE} float32, one thread\n")
    print("| | × ReLU | ms | saved MB |\n|---|---|---|---|")
    for row in rows:
        ratio = statistics.median(a / b for a, b in zip(row.seconds, relu, strict=True))
        spent = 1e3 * statistics.median(row.seconds)
        print(
            f"| {row.name} | {ratio:.2f} | {spent:.1f} | {saved_megabytes(row):.1f} |"
        )


if __name__ == "__main__":
    main()
