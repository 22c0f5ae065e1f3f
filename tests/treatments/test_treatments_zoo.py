"""Conversions that keep the function, on real architectures: bit-equal, trainable."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.treatments import Treated, treat
from vgaudit.treatments.running import largest_difference, outputs
from vgaudit.treatments.steps import replay, steps_of

torchvision = pytest.importorskip(
    "torchvision.models", exc_type=(ImportError, RuntimeError)
)

# Name → edits by ``ar`` (``normed``: behind norms too) and by ``adact``: how many
# ReLU, SiLU … layers the architecture has, counted in its source.
FAST = {
    "squeezenet1_1": (25, 25, 25),
    "mobilenet_v3_small": (10, 33, 33),
    "shufflenet_v2_x0_5": (0, 37, 37),
    "resnet18": (0, 9, 9),
}
SLOW = {
    "alexnet": (7, 7, 7),
    "vgg11": (10, 10, 10),
    "densenet121": (0, 59, 121),
    "vit_b_16": (12, 12, 12),
    "convnext_tiny": (18, 18, 18),
    "swin_t": (12, 12, 12),
}
MODELS = [
    *(pytest.param(name, counts, id=name) for name, counts in FAST.items()),
    *(
        pytest.param(name, counts, id=name, marks=pytest.mark.slow)
        for name, counts in SLOW.items()
    ),
]
WAYS = [
    ConvertOptions(to="ar", preserve=True),
    ConvertOptions(to="ar", preserve=True, normed=True),
    ConvertOptions(to="adact", preserve=True),
]


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model: nn.Module = torchvision.get_model(name, num_classes=10)
    return model


def batch(name: str) -> Batch:
    size = 224 if name.startswith("vit") else 64
    generator = torch.Generator().manual_seed(0)
    return Batch(args=(torch.randn(2, 3, size, size, generator=generator),), size=2)


@pytest.mark.parametrize(("name", "counts"), MODELS)
def test_kept_copied_reloaded_and_trained(
    name: str, counts: tuple[int, int, int]
) -> None:
    model, inputs = build(name), batch(name)
    for options, count in zip(WAYS, counts, strict=True):
        if count == 0:
            continue
        done = treat(model, [inputs], options)
        assert len(done.edits) == count
        assert done.preserved
        assert done.max_abs_diff == 0.0
        check_copy(done, inputs)
        check_reload(name, done, inputs)
        check_training(done, inputs.args[0])


def check_copy(done: Treated, inputs: Batch) -> None:
    before = outputs(done.model, [inputs], "eval")
    twin = copy.deepcopy(done.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert largest_difference(before, outputs(done.model, [inputs], "eval")) == 0.0


def check_reload(name: str, done: Treated, inputs: Batch) -> None:
    again = build(name)
    replay(again, steps_of(done.model))
    again.load_state_dict(done.model.state_dict())
    pair = [outputs(m, [inputs], "eval") for m in (done.model, again)]
    assert largest_difference(*pair) == 0.0


def check_training(done: Treated, x: Tensor) -> None:
    """One backward pass reaches every parameter that the conversion added."""
    done.model.train()
    value = done.model(x)
    value.square().mean().backward()
    added = [
        (key, p)
        for key, p in done.model.named_parameters()
        if key.endswith(("ar_limit", "values"))
    ]
    assert added
    missed = [key for key, parameter in added if parameter.grad is None]
    assert missed == []
