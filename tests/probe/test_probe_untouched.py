"""The user's model is bit-equal after a scan, whatever it does in its forward."""

from __future__ import annotations

import collections
import contextlib
import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fixtures import batches as fixture_inputs
from fixtures import models
from tests.probe.scans import batch, noise, scan, scan_all
from tests.probe.snapshots import differences, snapshot
from tests.probe.zoo import ZOO
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.probe import structure


def tower(*middle: nn.Module, given: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(given, 6), *middle, nn.Linear(6, 3))


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout())
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


class Restless(nn.Module):
    """Changes all that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("seen", torch.zeros(6))
        self.register_buffer("hidden", torch.zeros(6), persistent=False)
        self.plain = torch.zeros(6)
        self.calls = 0
        self.history: list[float] = []
        self.queue: collections.deque[float] = collections.deque(maxlen=3)
        self.counter = collections.Counter({"a": 1})
        self.nested: dict[str, Any] = {"inner": [1], "other": {"x": {1}}}
        self.names = {"one"}
        self.array = np.zeros(3)
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(float(x.mean()))
        self.queue.append(float(x.mean()))
        self.counter["b"] += 1
        self.nested["inner"].append(2)
        self.nested["other"]["x"].add(2)
        self.nested["new"] = 1
        self.names.add("two")
        self.array += 1
        self.seen.mul_(0.9).add_(x.detach().mean(0))
        self.hidden += 1
        self.plain += 1
        self.seen = self.seen + 0
        self.cache = x
        self.extra = x
        self.linear.note = "seen"
        random.random()
        np.random.random()
        return self.linear(x + 0.1 * torch.rand_like(x))


class Hooked(nn.Module):
    """Hooks of every kind, some of which return values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.log: list[str] = []
        self.first.register_forward_hook(lambda m, a, out: 2 * out)
        self.first.register_forward_hook(lambda m, a, out: None)
        self.first.register_forward_pre_hook(lambda m, a: (a[0] + 1,))
        self.last.register_full_backward_hook(lambda m, i, o: self.log.append("b"))
        self.first.weight.register_hook(lambda grad: 3 * grad)
        self.last.weight.register_post_accumulate_grad_hook(
            lambda p: self.log.append("accumulated")
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Cached(nn.Module):
    """Keeps lists of tensors, as an attention cache does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.cache: list[list[Tensor]] = [[], []]

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        self.cache[0].append(out.detach())
        self.cache[1].append(x)
        return out + torch.stack(self.cache[0]).mean(0)


class Unregistered(nn.Module):
    """Weights that no module knows of: in a list, and as plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.hidden = [nn.Linear(6, 6), nn.Linear(6, 6)]
        self.loose = [nn.Parameter(torch.ones(6))]
        self.scale = torch.ones(6, requires_grad=True)
        self.loose[0].grad = torch.full((6,), 7.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * self.scale * self.loose[0]
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.last(x)


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    return net


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tower(nn.utils.weight_norm(nn.Linear(6, 6)), nn.ReLU())


def _frozen_part() -> nn.Module:
    net = tower(nn.BatchNorm1d(6), nn.ReLU())
    net[0].requires_grad_(False)
    net[1].eval()
    return net


def _with_gradients() -> nn.Module:
    net = tower(nn.Linear(6, 6), nn.ReLU())
    net(noise(4, 6)).sum().backward()
    net[1].weight.grad = None
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: tower(nn.ReLU()),
    "old weight norm": _old_weight_norm,
    "new weight norm": lambda: tower(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    ),
    "old spectral norm": lambda: tower(nn.utils.spectral_norm(nn.Linear(6, 6))),
    "new spectral norm": lambda: tower(
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
    ),
    "batch norm and dropout": lambda: tower(
        nn.BatchNorm1d(6), nn.Dropout(0.3), nn.RReLU(), nn.AlphaDropout()
    ),
    "sync batch norm off": lambda: tower(nn.BatchNorm1d(6, track_running_stats=False)),
    "tied": _tied,
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "restless": Restless,
    "hooked": Hooked,
    "frozen part": _frozen_part,
    "gradients already there": _with_gradients,
    "half": lambda: tower(nn.ReLU()).half(),
    "bfloat16": lambda: tower(nn.GELU()).bfloat16(),
    "float64": lambda: tower(nn.GELU()).double(),
    "compiled": lambda: torch.compile(tower(nn.ReLU()), backend="eager"),
    "compiled part": lambda: tower(torch.compile(nn.ReLU(), backend="eager")),
    "data parallel": lambda: nn.DataParallel(tower(nn.ReLU())),
    "eval mode": lambda: tower(nn.BatchNorm1d(6), nn.Dropout()).eval(),
    "cached lists": Cached,
    "unregistered": Unregistered,
}


def _seed_everything() -> None:
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)


def check(model: nn.Module, act: Callable[[], Any]) -> None:
    """Runs ``act`` and compares all that can be seen before and after."""
    before = snapshot(model)
    act()

    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("name", MODELS)
def test_a_scan_leaves_the_model_as_it_was(name: str) -> None:
    _seed_everything()
    model = MODELS[name]()
    given = [batch(noise(4, 6)) for _ in range(2)]
    copies = [copy.deepcopy(b.args) for b in given]

    check(model, lambda: scan_all(model, given))

    for kept, passed in zip(copies, given, strict=True):
        assert torch.equal(kept[0], passed.args[0])
        assert passed.args[0].__dict__ == {}


@pytest.mark.parametrize("options", [{"mode": "eval"}, {"dtype": "float64"},
                                     {"unfreeze": True}])  # fmt: skip
@pytest.mark.parametrize("name", ["batch norm and dropout", "restless", "frozen part"])
def test_other_options_leave_it_as_it_was_too(
    name: str, options: dict[str, Any]
) -> None:
    _seed_everything()
    model = MODELS[name]()

    check(model, lambda: scan(model, noise(4, 6), **options))


def test_every_fixture_is_left_as_it_was() -> None:
    for name in fixture_inputs.NAMES:
        model = getattr(models, name)()
        args = fixture_inputs.inputs(name, 4)
        check(model, lambda m=model, a=args: scan_all(m, [Batch(args=a, size=4)]))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_keep_their_flat_weights(kind: type[nn.RNNBase]) -> None:
    model = kind(6, 5, num_layers=2, dropout=0.5, bidirectional=True)
    flat = list(model._flat_weights)

    check(model, lambda: scan(model, noise(4, 7, 6)))

    assert all(a is b for a, b in zip(flat, model._flat_weights, strict=True))
    assert all(a is b for a, b in zip(flat, model.parameters(), strict=True))


def test_a_resnet_is_left_as_it_was() -> None:
    model, args = ZOO["resnet18"]()

    check(model, lambda: scan(model, *args))


class Failing(nn.Module):
    """Fails in the middle, after it has changed things."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.where, self.calls = where, 0
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        x = self.norm(self.first(F.dropout(x)))
        if self.where == "forward" or (self.where == "later" and self.calls > 1):
            raise ValueError("broken on purpose")
        if self.where == "backward":
            x.register_hook(lambda grad: 1 / 0)
        return x


@pytest.mark.parametrize("where", ["forward", "later", "backward"])
def test_a_failing_model_is_left_as_it_was(where: str) -> None:
    _seed_everything()
    model = Failing(where)
    given = [batch(noise(4, 6)), batch(noise(4, 6))]

    def act() -> None:
        with pytest.raises(CannotRun):
            scan_all(model, given)

    check(model, act)


def test_a_failing_structure_leaves_the_model_as_it_was() -> None:
    _seed_everything()
    model = Failing("forward")

    def act() -> None:
        with pytest.raises(CannotRun):
            structure(model, batch(noise(4, 6)))

    check(model, act)


@pytest.mark.parametrize(
    "name", ["plain", "restless", "hooked", "new weight norm", "old weight norm"]
)
def test_reading_the_structure_leaves_the_model_as_it_was(name: str) -> None:
    _seed_everything()
    model = MODELS[name]()

    def act() -> None:
        with contextlib.suppress(CannotRun):
            structure(model, batch(noise(4, 6)))

    check(model, act)


def test_an_interrupted_scan_leaves_the_model_as_it_was() -> None:
    class Interrupted(Restless):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise KeyboardInterrupt

    _seed_everything()
    model = Interrupted()

    def act() -> None:
        with pytest.raises(KeyboardInterrupt):
            scan(model, noise(4, 6))

    check(model, act)


def test_a_scan_works_inside_no_grad_and_leaves_it_on() -> None:
    model = tower(nn.ReLU())
    with torch.no_grad():
        flow = scan(model, noise(4, 6))

        assert not torch.is_grad_enabled()
    assert flow.attenuation is not None


def test_unregistered_weights_keep_their_gradients() -> None:
    model = Unregistered()
    scan(model, noise(4, 6))

    assert torch.equal(model.loose[0].grad, torch.full((6,), 7.0))
    assert model.scale.grad is None
    assert all(p.grad is None for layer in model.hidden for p in layer.parameters())


def test_global_hooks_are_gone() -> None:
    table = torch.nn.modules.module
    before = [len(table._global_forward_hooks), len(table._global_forward_pre_hooks)]
    scan(tower(nn.ReLU()), noise(4, 6))
    with pytest.raises(CannotRun):
        scan(Failing("forward"), noise(4, 6))

    assert before == [
        len(table._global_forward_hooks),
        len(table._global_forward_pre_hooks),
    ]
