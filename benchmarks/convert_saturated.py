"""What conversions do to a trained tanh network that was driven into saturation.

    python benchmarks/convert_saturated.py --data-root DIR [--seeds 5]

DIR holds ``MNIST/`` as torchvision keeps it. Five tanh layers of width 64, trained for
two epochs (30,000 images, batch 128, Adam 1e-3), then all hidden weights × 8. From
there: trained on as it is, or after a conversion, the same batches for all. Test
accuracy at once and after each epoch, and max/min over the hidden layers of the
gradient's norm at their outputs; mean and range over seeds, in Markdown.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from convert_mnist import CLASSES, PIXELS, WIDTH, Images, accuracies, cell, images
from torch import Tensor, nn

import vgaudit
from vgaudit.conversion import ConvertOptions

DEPTH, FACTOR = 5, 8.0
SAMPLES, PROBED = 2048, 1024
"""Images that a conversion is calibrated on, and that the gradient is taken on."""


def saturated(data: Images, seed: int) -> nn.Sequential:
    """Returns a trained network whose hidden weights are then far too large."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(DEPTH):
        layers += [nn.Linear(WIDTH if number else PIXELS, WIDTH), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))
    accuracies(model, data, 2, seed)
    with torch.no_grad():
        for layer in hidden(model):
            layer.weight.mul_(FACTOR)
    return model


def hidden(model: nn.Sequential) -> list[nn.Linear]:
    """Returns the layers before the output layer."""
    return [layer for layer in list(model)[:-1] if isinstance(layer, nn.Linear)]


def as_it_is(model: nn.Sequential, _data: Images) -> nn.Module:
    return copy.deepcopy(model)


def converted(**wanted: object) -> Callable[[nn.Sequential, Images], nn.Module]:
    options = ConvertOptions(**wanted)  # type: ignore[arg-type]

    def build(model: nn.Sequential, data: Images) -> nn.Module:
        pair = data.x[:SAMPLES], data.y[:SAMPLES]
        done = vgaudit.convert(
            model, to=options.to, options=options, data=pair, compare=False
        )
        return done.model

    return build


ARMS: dict[str, Callable[[nn.Sequential, Images], nn.Module]] = {
    "trained on as it is": as_it_is,
    "`--to ar`": converted(to="ar"),
    "`--to ar --no-refit`": converted(to="ar", refit=False),
    "`--to rescale`": converted(to="rescale"),
    "`--to adact`": converted(to="adact"),
}


def accuracy(model: nn.Module, data: Images) -> float:
    with torch.no_grad():
        right = model.eval()(data.test_x).argmax(1) == data.test_y
    return 100 * float(right.float().mean())


def largest_ratio(model: nn.Module, data: Images) -> float:
    """Returns max/min over hidden layers of the gradient's norm at their outputs."""
    norms: list[float] = []

    def watch(_layer: nn.Module, _given: object, output: Tensor) -> None:
        output.register_hook(lambda grad: norms.append(float(grad.norm())))

    assert isinstance(model, nn.Sequential)
    handles = [layer.register_forward_hook(watch) for layer in hidden(model)]
    outputs = model(data.x[:PROBED])
    nn.functional.cross_entropy(outputs, data.y[:PROBED]).backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    return max(norms) / min(norms)


def row(name: str, start: list[nn.Sequential], data: Images) -> str:
    """Returns the row of one arm over all seeds."""
    columns: list[list[float]] = []
    for seed, model in enumerate(start):
        made = ARMS[name](model, data)
        figures = [accuracy(made, data), largest_ratio(made, data)]
        figures += accuracies(made, data, 2, 100 + seed)
        columns.append([*figures, largest_ratio(made, data)])
    at_once, before, first, second, after = map(list, zip(*columns, strict=True))
    cells = map(cell, (at_once, first, second, before, after))
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    data = images(given.data_root)
    start = [saturated(data, seed) for seed in range(given.seeds)]
    print("| then | at once | epoch 1 | epoch 2 | max/min at once | after 2 epochs |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in ARMS:
        print(row(name, start, data), flush=True)


if __name__ == "__main__":
    main()
