"""Which calls are activations, what they are called, and where they stand."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fixtures import models
from tests.probe.scans import activation, batch, layer, noise, scan, scan_all
from vgaudit.flow import GradientFlow


def kinds(flow: GradientFlow) -> list[str]:
    """Returns the kinds of all activations, in forward order."""
    return [r.activation.kind for r in flow.layers if r.activation is not None]


def around(middle: Callable[[Tensor], Tensor]) -> nn.Module:
    """Returns linear → ``middle`` → linear, seeded."""
    torch.manual_seed(0)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Linear(6, 6), middle
            self.last = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.first(x)))

    return Around()


class Swish(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(z)


# ------------------------------------------------------------ no activation


class Doubled(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return 2 * z + 1


class Centred(nn.Module):
    """Nonlinear, and not elementwise."""

    def forward(self, z: Tensor) -> Tensor:
        return (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True)


class Noisy(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rand_like(z)


class Same(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z


@pytest.mark.parametrize(
    "middle",
    [
        nn.Softmax(-1), nn.LogSoftmax(-1), nn.Dropout(0.5), nn.Identity(),
        nn.AvgPool1d(3, 1, 1), nn.MaxPool1d(3, 1, 1), nn.LayerNorm(6), Doubled(),
        Centred(), Noisy(), Same(), torch.exp, torch.sin,
        lambda z: z.clamp(-100, 100), lambda z: z.softmax(-1), lambda z: z * 2,
        lambda z: F.dropout(z, 0.5), lambda z: z.square(),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)  # fmt: skip
def test_what_is_no_activation_is_not_listed_as_one(
    middle: Callable[[Tensor], Tensor],
) -> None:
    assert kinds(scan(around(middle), noise(5, 6))) == []


def test_activations_of_weights_and_constants_are_ignored() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
            self.gate = nn.Parameter(torch.zeros(6))
            self.register_buffer("mask", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            scale = torch.sigmoid(self.gate) * torch.relu(self.mask)
            scale = scale * torch.tanh(torch.ones(6))
            return self.last(torch.relu(self.linear(x)) * scale)

    flow = scan_all(Net(), [batch(noise(4, 6, seed=s)) for s in range(2)])

    assert kinds(flow) == ["relu"]


# ------------------------------------------------------------ calls and names


def test_every_way_of_calling_is_seen() -> None:
    flow = scan(models.functional_activations(), noise(6, 32))

    assert [r.path for r in flow.layers if r.activation] == [
        "relu#1", "sigmoid#1", "tanh#1", "tanh#2", "leaky_relu#1", "relu#2", "silu#1",
    ]  # fmt: skip
    assert all(r.gain is not None for r in flow.layers if r.activation)


def test_keyword_calls_are_seen() -> None:
    flow = scan(around(lambda z: F.relu(input=torch.sigmoid(input=z))), noise(3, 6))

    assert kinds(flow) == ["sigmoid", "relu"]


def test_each_call_of_a_reused_activation_is_listed() -> None:
    flow = scan(models.reused_module(), noise(6, 32))

    for path in ("act", "step"):
        calls = [(r.call, r.calls) for r in flow.layers if r.path == path]
        assert calls == [(0, 4), (1, 4), (2, 4), (3, 4)]
    depths = [r.depth for r in flow.layers if r.path == "step"]
    assert depths == [4, 3, 2, 1]
    gains = [r.attenuation.value for r in flow.layers if r.path == "act"]
    assert gains == sorted(gains)
    owners = [r.call for r in flow.layers if r.path == "step" and r.parameters]
    assert owners == [0]


def test_in_place_on_a_view_is_measured() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x.view(-1, 8)[:, :4].relu_()
            return self.last(x)

    net, x = Net(), noise(5, 6)
    flow = scan(net, x)
    z = net.first(x)[:, :4]

    seen = activation(flow, "relu#1")
    assert seen.input.mean == pytest.approx(float(z.detach().mean()), abs=1e-6)
    assert seen.units == 4
    assert layer(flow, "first").attenuation is not None


def test_a_gate_multiplies_other_data() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.act, self.head = nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.stem(x))
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            return self.head(x.mean((2, 3)))

    flow = scan(Squeeze(), noise(4, 3, 5, 5))

    assert activation(flow, "sigmoid#1").gate
    assert not activation(flow, "act").gate


def test_source_lines_are_those_of_the_users_file() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.own = Swish()
            self.last = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)  # line of first
            x = F.relu(x)  # line of relu#1
            x = self.own(x)  # line of own
            return self.last(torch.tanh(x))  # line of tanh#1

    flow = scan(Net(), noise(3, 6))

    lines, start = inspect.getsourcelines(Net)
    expected = {
        text.rpartition("line of ")[2].strip(): start + place
        for place, text in enumerate(lines)
        if "line of " in text
    }
    for path, line in expected.items():
        source = layer(flow, path).source
        assert source is not None, path
        assert (Path(source.file), source.line) == (Path(__file__), line), path


def test_the_caller_of_the_scan_is_never_named() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))

    assert {r.source for r in scan(net, noise(3, 6)).layers} == {None}


def test_names_are_the_same_in_every_batch() -> None:
    net = models.functional_activations()
    one = scan_all(net, [batch(noise(4, 32))])
    many = scan_all(net, [batch(noise(4, 32, seed=s)) for s in range(5)])

    assert [r.path for r in one.layers] == [r.path for r in many.layers]
    assert [s.name for s in one.trunk] == [s.name for s in many.trunk]
    for row in many.layers:
        assert row.attenuation is not None
        assert row.attenuation.n == 5
        assert row.source == layer(one, row.path).source
        if row.activation is not None:
            assert row.activation.samples == 20


def test_the_gain_stops_where_another_output_begins() -> None:
    """The hidden layer is an output too: its own cotangent is no gain of ``last``."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = (nn.Linear(6, 6, bias=False) for _ in "ab")
            with torch.no_grad():
                self.last.weight.copy_(0.1 * torch.eye(6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.first(x)
            return self.last(hidden), hidden

    flow = scan(Both(), noise(4, 6))

    assert layer(flow, "last").gain.value == pytest.approx(-1.0, abs=1e-6)
    assert math.isfinite(layer(flow, "first").attenuation.value)
