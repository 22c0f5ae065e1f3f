"""What a step of SDAGD costs beside SGD, SGD again, and Adam.

    python benchmarks/sdagd_step.py [--hidden 1 5] [--width 700] [--blocks 30]

Every optimizer trains a copy of the same 784-(width x k)-10 network on the same
batch: 10 steps of one, then 10 of the next, in shuffled order, in one process. Ten
steps hold one observation of curvature, and warm the caches as real training does.
A figure is the median over rounds of (time of these steps / time of SGD's). The
second SGD is the A/A row: what it is away from 1 is what the others cannot say.

A step is forward, backward and the optimizer's step; zero_grad is outside. On a CPU
the time is CPU time, so that other processes disturb less. glibc
gives large blocks back to the system at once, which costs whoever allocates; run
with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184
MALLOC_TOP_PAD_=67108864 to measure the optimizers and not the heap.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

from vgaudit.optim import SDAGD, CenteredAdam

EVERY = 10

Factory = Callable[[nn.Module], Optimizer]

OPTIMIZERS: dict[str, Factory] = {
    "SGD": lambda m: SGD(m.parameters(), lr=0.01),
    "SGD again (A/A)": lambda m: SGD(m.parameters(), lr=0.01),
    "SGD, momentum": lambda m: SGD(m.parameters(), lr=0.01, momentum=0.9),
    "Adam, foreach": lambda m: Adam(m.parameters(), foreach=True),
    "Adam, fused": lambda m: Adam(m.parameters(), fused=True),
    "centred Adam": lambda m: CenteredAdam(m.named_parameters()),
    "SDAGD, no centring": lambda m: SDAGD(m.named_parameters(), centring=False),
    "SDAGD": lambda m: SDAGD(m.named_parameters()),
    f"SDAGD, curvature every {EVERY}": lambda m: SDAGD(
        m.named_parameters(), kappa=100.0, every=EVERY
    ),
    "SDAGD, curvature every 1": lambda m: SDAGD(
        m.named_parameters(), kappa=100.0, every=1
    ),
}


@dataclass(frozen=True)
class Runner:
    model: nn.Module
    optimizer: Optimizer

    def step(self, inputs: Tensor, labels: Tensor) -> float:
        """Returns the seconds of one training step."""
        self.optimizer.zero_grad()
        start = clock(inputs.device)
        output = self.model(inputs)
        if isinstance(self.optimizer, SDAGD):
            self.optimizer.observe(output, "cross-entropy")
        cross_entropy(output, labels).backward()
        self.optimizer.step()
        return clock(inputs.device) - start


def clock(device: torch.device) -> float:
    """Returns seconds of wall on a GPU, of CPU time on a CPU that others may use."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def network(hidden: int, width: int, device: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = [784, *[width] * hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10)).to(device)


def measure(hidden: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Returns each optimizer's seconds, one figure for each block of steps."""
    inputs = torch.randn(options.batch, 784, device=options.device)
    labels = torch.randint(0, 10, (options.batch,), device=options.device)
    runners = {
        name: Runner(model, make(model))
        for name, make in OPTIMIZERS.items()
        for model in [network(hidden, options.width, options.device)]
    }
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    order = random.Random(0)
    for turn in range(options.warmup + options.blocks):
        # Shuffled, so that nobody always runs on the caches of the same neighbour.
        for name in order.sample(list(runners), len(runners)):
            spent = [runners[name].step(inputs, labels) for _ in range(EVERY)]
            if turn >= options.warmup:
                seconds[name].append(sum(spent))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--width", type=int, default=700)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--blocks", type=int, default=30, help="of 10 steps each")
    parser.add_argument("--warmup", type=int, default=2, help="blocks not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} thread(s)")
    print(f"width {options.width}, batch {options.batch}, {options.blocks} blocks\n")
    print("| k | optimizer | time / SGD | quartiles |\n|---|---|---|---|")
    for hidden in options.hidden:
        seconds = measure(hidden, options)
        for name, times in seconds.items():
            base = seconds["SGD"]
            ratios = [own / sgd for own, sgd in zip(times, base, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"| {hidden} | {name} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
