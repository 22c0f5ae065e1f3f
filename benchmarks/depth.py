"""Does the verdict agree with training? Depth × activation × optimizer on MNIST.

    python benchmarks/depth.py --data-root DIR

DIR holds MNIST in torchvision's layout. Every net is a plain MLP of width 64 in
PyTorch's default initialisation. It is scanned once, untrained, without labels,
and then trained: SGD with momentum 0.9 (the best of three learning rates) and
Adam 1e-3 (the best of two). A net "trains" when it passes 80 % test accuracy.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.data.batch import Batch
from vgaudit.flow import Audit, DataFacts, RunFacts, Target
from vgaudit.judge import Policy, judge
from vgaudit.probe import probe

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
DEPTHS = (3, 4, 5, 6, 8, 10, 15, 20)
RATES = {"sgd": (0.01, 0.1, 0.5), "adam": (1e-3, 3e-3)}
TRAINS = 0.80


def mlp(activation: type[nn.Module], depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 784
    for _ in range(depth):
        layers += [nn.Linear(width, 64), activation()]
        width = 64
    return nn.Sequential(*layers, nn.Linear(width, 10))


def mnist(root: str, train: bool, limit: int) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    data = MNIST(root, train=train)
    images = data.data[:limit].float().div(255).flatten(1)
    return (images - 0.1307) / 0.3081, data.targets[:limit]


def train(
    model: nn.Module, kind: str, rate: float, data: tuple[Tensor, ...], epochs: int
) -> float:
    x, y, test_x, test_y = data
    make = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=rate),
    }
    optimizer = make[kind]()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(test_x).argmax(1) == test_y).float().mean())


def verdicts(model: nn.Module, x: Tensor) -> tuple[float, dict[str, str]]:
    batches = [Batch(args=(x[i * 32 : i * 32 + 32],), size=32) for i in range(4)]
    flow = probe(model, batches)
    blank = Target(
        spec="mlp", format="object", trust_tier="T0", architecture="mlp",
        parameters=1, trainable=1,
    )  # fmt: skip
    audit = Audit(
        target=blank,
        data=DataFacts(kind="real", spec="MNIST", loss="jacobian"),
        run=RunFacts(torch="", python="", device="cpu", seed=0, seconds=0.0),
        flow=flow,
    )
    found = {}
    for optimizer in ("sgd", "adam"):
        report = judge(audit, Policy(optimizer=optimizer))
        levels = [f.level for f in report.findings if f.code == "VG101"]
        found[optimizer] = levels[0] if levels else "-"
    assert flow.attenuation is not None
    return flow.attenuation.value, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=30_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = (
        *mnist(options.data_root, True, options.samples),
        *mnist(options.data_root, False, 10_000),
    )
    started = time.time()
    print("| net | seed | attenuation | SGD says | reaches | Adam says | reaches |")
    print("|---|---|---|---|---|---|---|")
    for name, activation in ACTIVATIONS.items():
        for depth in DEPTHS:
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                model = mlp(activation, depth)
                start = {k: v.clone() for k, v in model.state_dict().items()}
                value, said = verdicts(model, data[0])
                best = dict.fromkeys(RATES, 0.0)
                for kind, rates in RATES.items():
                    for rate in rates:
                        model.load_state_dict(start)
                        torch.manual_seed(seed)
                        reached = train(model, kind, rate, data, options.epochs)
                        best[kind] = max(best[kind], reached)
                        if best[kind] > TRAINS:
                            break
                cells = [
                    f"{said[kind]} | {100 * best[kind]:.1f} %"
                    for kind in ("sgd", "adam")
                ]
                print(
                    f"| {name} {depth} | {seed} | {value:.2f} | {' | '.join(cells)} |",
                    flush=True,
                )
    print(f"\n{time.time() - started:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
