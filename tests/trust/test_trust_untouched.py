"""Thirteen kinds of models are bit-equal after a scan, and train on as if unscanned."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vgaudit

HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"),
    *("_backward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks"),
)


def stack(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 3))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return stack(nn.utils.weight_norm(nn.Linear(8, 8)))


def tied() -> nn.Module:
    net = stack(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    net[3].weight = net[1].weight
    return net


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.block, self.first(x), use_reentrant=False))


class Counting(nn.Module):
    """Keeps what no state_dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stack()
        self.register_buffer("mean", torch.zeros(6), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.net(x - self.mean)


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = stack(nn.Linear(8, 8))
        self.seen = 0
        self.net[0].register_forward_hook(lambda m, args, out: 2 * out)
        self.net[1].register_forward_pre_hook(lambda m, args: (args[0] + 1,))
        self.net[1].register_full_backward_hook(lambda m, into, out: self.count())
        self.net[3].register_full_backward_pre_hook(lambda m, out: self.count())
        self.net[3].weight.register_hook(lambda grad: 3 * grad)
        self.net[3].bias.register_post_accumulate_grad_hook(lambda p: self.count())

    def count(self) -> None:
        self.seen += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made)),
            *(nn.ReLU(inplace=True), nn.Conv2d(made, made, 3, 1, 1, bias=False)),
            nn.BatchNorm2d(made),
        )
        self.skip = nn.Sequential(
            nn.Conv2d(given, made, 1, stride, bias=False), nn.BatchNorm2d(made)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.skip(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


KINDS: dict[str, Callable[[], nn.Module]] = {
    "old weight_norm": old_weight_norm,
    "new weight_norm": lambda: stack(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    ),
    "spectral_norm": lambda: stack(
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
    ),
    "batch norm and dropout": lambda: stack(nn.BatchNorm1d(8), nn.Dropout(0.3)),
    "tied weights": tied,
    "lstm": Recurrent,
    "compiled": lambda: torch.compile(stack(nn.BatchNorm1d(8)), backend="eager"),
    "checkpointed": Checkpointed,
    "fp16": lambda: stack().half(),
    "non-persistent buffers": Counting,
    "own hooks": Hooked,
    "data parallel": lambda: nn.DataParallel(stack(nn.BatchNorm1d(8))),
    "resnet": resnet,
    "lazily initialised": lambda: nn.Sequential(
        nn.LazyLinear(8), nn.Tanh(), nn.LazyBatchNorm1d(), nn.LazyLinear(3)
    ),
}
SHAPES = {"lstm": (8, 5, 6), "resnet": (8, 3, 8, 8)}


def built(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = KINDS[name]()
    if name != "lazily initialised":
        # The model has been trained a little: gradients and statistics are there.
        train(model, name)
        frozen = next(iter(model.parameters()))
        frozen.requires_grad_(False)
    return model


def data(name: str) -> tuple[Tensor, Tensor]:
    maker = torch.Generator().manual_seed(5)
    shape = SHAPES.get(name, (8, 6))
    x = torch.randn(shape, generator=maker)
    y = torch.randint(0, 3, (8,), generator=maker)
    return (x.half() if name == "fp16" else x), y


def train(model: nn.Module, name: str) -> None:
    x, y = data(name)
    torch.manual_seed(7)
    nn.functional.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)


def bits(value: Tensor | None) -> object:
    if value is None or isinstance(value, nn.parameter.UninitializedTensorMixin):
        return type(value).__name__
    flat = value.detach().contiguous().reshape(-1)
    return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).tolist()


def state(model: nn.Module) -> dict[str, Any]:
    """Returns everything that a scan could have touched."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    numpy_state = np.random.get_state()
    return {
        "state_dict": {k: bits(v) for k, v in model.state_dict().items()},
        "buffers": {k: bits(v) for k, v in buffers.items()},
        "weights": {k: (id(v), v.requires_grad) for k, v in weights.items()},
        "gradients": {k: (id(v.grad), bits(v.grad)) for k, v in weights.items()},
        "modes": {k: m.training for k, m in modules.items()},
        "hooks": {
            k: [list(map(id, getattr(m, hooks).values())) for hooks in HOOKS]
            for k, m in modules.items()
        },
        "hooks of weights": {
            k: [
                list(map(id, (getattr(v, hooks, None) or {}).values()))
                for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks")
            ]
            for k, v in weights.items()
        },
        "classes": {k: type(m) for k, m in modules.items()},
        "random": (
            bits(torch.get_rng_state()),
            random.getstate(),
            (numpy_state[0], numpy_state[1].tolist(), numpy_state[2:]),
        ),
    }


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_bit_equal_after_a_scan(name: str, mode: str) -> None:
    model = built(name).train(mode == "train")
    x, y = data(name)
    given = x.clone(), y.clone()
    before = state(model)

    report = vgaudit.scan(
        model,
        (x, y),
        loss="cross-entropy",
        probe_options=vgaudit.ProbeOptions(mode=mode),  # type: ignore[arg-type]
    )

    after = state(model)
    assert {key: after[key] == before[key] for key in before} == dict.fromkeys(
        before, True
    )
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])
    assert report.audit is not None
    assert report.audit.flow.layers


@pytest.mark.parametrize("name", KINDS)
def test_a_scanned_model_trains_on_as_its_twin_that_was_not(name: str) -> None:
    scanned, twin = built(name), built(name)

    vgaudit.scan(scanned, data(name), loss="cross-entropy")
    for model in (scanned, twin):
        train(model, name)

    ours, theirs = state(scanned), state(twin)
    for key in ("state_dict", "buffers"):
        assert ours[key] == theirs[key]
    assert [grad for _, grad in ours["gradients"].values()] == [
        grad for _, grad in theirs["gradients"].values()
    ]
