"""What the documents say of ``convert`` on MNIST: minutes, real data, one seed each.

    VGAUDIT_TEST_DATA=… pytest -m slow tests/treatments/test_treatments_mnist.py

The tables of ``docs/convert.md`` have five seeds (``benchmarks/convert_mnist.py`` and
``convert_saturated.py``); the limits here leave room for another seed.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vgaudit
from vgaudit.conversion import Treatment

pytestmark = [pytest.mark.slow, pytest.mark.data]

WIDTH, BATCH, IMAGES = 64, 128, 30_000
Data = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def mnist() -> Data:
    folder = Path(os.environ.get("VGAUDIT_TEST_DATA", "absent")) / "MNIST" / "raw"
    if not folder.exists():
        pytest.skip("set VGAUDIT_TEST_DATA to a folder with MNIST")
    found = []
    for name, count in (("train", IMAGES), ("t10k", 10_000)):
        pixels = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8)[16:]
        labels = np.fromfile(folder / f"{name}-labels-idx1-ubyte", np.uint8)[8:]
        found.append(torch.from_numpy(pixels).view(-1, 784)[:count].float() / 255)
        found.append(torch.from_numpy(labels)[:count].long())
    x, y, test_x, test_y = found
    return x, y, test_x, test_y


def network(depth: int, activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for size in [784, *[WIDTH] * (depth - 1)]:
        layers += [nn.Linear(size, WIDTH), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def trained(model: nn.Module, data: Data, epochs: int) -> float:
    x, y, _, _ = data
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return accuracy(model, data)


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        right = model(data[2]).argmax(1) == data[3]
    return 100 * float(right.double().mean())


def converted(model: nn.Module, to: Treatment, data: Data, images: int) -> nn.Module:
    pair = data[0][:images], data[1][:images]
    return vgaudit.convert(model, to=to, data=pair, compare=False).model


def ratio(model: nn.Module, data: Data) -> float:
    """max/min over the hidden layers of the gradient's norm at their outputs."""
    norms: list[float] = []
    assert isinstance(model, nn.Sequential)
    z = data[0][:1024]
    hidden = []
    for layer in model:
        z = layer(z)
        if isinstance(layer, nn.Linear):
            z.retain_grad()
            hidden.append(z)
    nn.functional.cross_entropy(z, data[1][:1024]).backward()
    for output in hidden[:-1]:
        assert output.grad is not None
        norms.append(float(output.grad.norm()))
    model.zero_grad()
    return max(norms) / min(norms)


@pytest.mark.parametrize(("depth", "least"), [(10, 91.0), (20, 89.0)])
def test_deep_sigmoid_networks_train_after_a_conversion(
    mnist: Data, depth: int, least: float
) -> None:
    model = network(depth, nn.Sigmoid)
    ready = converted(model, "ar", mnist, 4 * BATCH)
    assert trained(model, mnist, 3) < 20
    assert trained(ready, mnist, 3) > least


@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_a_saturated_network_is_kept_and_trains_on(mnist: Data, to: Treatment) -> None:
    model = network(5, nn.Tanh)
    trained(model, mnist, 2)
    with torch.no_grad():
        for layer in list(model)[:-1]:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(8.0)
    ready = converted(model, to, mnist, 2048)
    assert accuracy(ready, mnist) > accuracy(model, mnist) - 1.0
    assert ratio(ready, mnist) < min(6.0, ratio(model, mnist) / 2)
    plain = trained(copy.deepcopy(model), mnist, 2)
    assert trained(ready, mnist, 2) > plain
    assert ratio(ready, mnist) < 5.0
