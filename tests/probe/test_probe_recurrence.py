"""The gradient against the lag, held against products of Jacobians and autograd."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from tests.probe.scans import batch, noise, scan, scan_all
from vgaudit.flow import GradientFlow, RecurrenceFlow
from vgaudit.probe.lags import direction
from vgaudit.probe.replay import kernel, replay

RADII = (0.5, 0.9, 1.1)


class Reader(nn.Module):
    """A fused recurrent layer and a head on its last state, or on all of them."""

    def __init__(self, cell: nn.Module, size: int, *, every: bool = False) -> None:
        super().__init__()
        self.cell, self.head, self.every = cell, nn.Linear(size, 3), every

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x)
        return self.head(states if self.every else states[:, -1])


class Loop(nn.Module):
    """One of torch's cells, called once per step."""

    def __init__(self, cell: nn.Module, size: int, *, every: bool = False) -> None:
        super().__init__()
        self.cell, self.head, self.every = cell, nn.Linear(size, 3), every

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        seen = []
        for now in x.unbind(1):
            state = self.cell(now, state)
            seen.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(seen, 1) if self.every else seen[-1])


class Plain(nn.Module):
    """A recurrent net of two linear layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inp, self.rec = nn.Linear(4, size), nn.Linear(size, size)
        self.head = nn.Linear(size, 3)

    def states(self, x: Tensor) -> list[Tensor]:
        state = x.new_zeros(len(x), self.rec.out_features)
        made = []
        for now in x.unbind(1):
            state = torch.tanh(self.inp(now) + self.rec(state))
            made.append(state)
        return made

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.states(x)[-1])


def norms_of(*gradients: Tensor) -> list[list[float]]:
    """Returns the L2 norm of each sample, of each gradient."""
    return [g.flatten(1).norm(dim=1).tolist() for g in gradients]


def grouped(norms: list[list[float]]) -> list[list[float]]:
    """Returns decades against the first row, over groups of samples by numpy."""
    squares = [np.square(row) for row in norms]
    size = math.ceil(len(squares[0]) / 4)
    firsts = range(0, len(squares[0]), size)
    logs = [[math.log10(s[i : i + size].sum()) / 2 for i in firsts] for s in squares]
    return [[a - b for a, b in zip(row, logs[0], strict=True)] for row in logs]


def only(flow: GradientFlow) -> RecurrenceFlow:
    (found,) = flow.recurrences
    return found


def with_radius(weight: Tensor, radius: float) -> None:
    """Scales a square weight to a spectral radius."""
    with torch.no_grad():
        weight.mul_(radius / float(torch.linalg.eigvals(weight).abs().max()))


def by_hand(net: nn.Module, x: np.ndarray) -> list[float]:
    """Returns log10 ‖∂h_T/∂h_{T−lag}‖_F by products of Jacobians, in float64."""
    w_ih, w_hh = (p.detach().numpy() for p in (net.inp.weight, net.rec.weight))
    bias = (net.inp.bias + net.rec.bias).detach().numpy()
    size = len(w_hh)
    squares = np.zeros(len(x[0]))
    for sample in x:
        h, factors = np.zeros(size), []
        for now in sample:
            h = np.tanh(w_ih @ now + w_hh @ h + bias)
            factors.append((1 - h**2)[:, None] * w_hh)
        product = np.eye(size)
        for lag in range(len(x[0])):
            squares[lag] += (product**2).sum()
            product = product @ factors[-1 - lag]
    logs = np.log10(squares) / 2
    return list(logs - logs[0])


def twice(radius: float) -> tuple[Plain, nn.RNN, Tensor]:
    """Returns a tanh net as a loop and as a kernel, of the same weights, and its data.

    Args:
        radius: the spectral radius of the recurrent weight.
    """
    torch.manual_seed(0)
    net = Plain(24).double()
    with_radius(net.rec.weight, radius)
    x = 0.1 * noise(8, 200, 4).double()
    fused = nn.RNN(4, 24, batch_first=True).double()
    for name, source in (("ih", net.inp), ("hh", net.rec)):
        getattr(fused, f"weight_{name}_l0").data.copy_(source.weight.data)
        getattr(fused, f"bias_{name}_l0").data.copy_(source.bias.data)
    return net, fused, x


@pytest.mark.parametrize("radius", RADII)
def test_the_decay_of_a_plain_rnn_is_that_of_the_product_of_its_jacobians(
    radius: float,
) -> None:
    net, fused, x = twice(radius)
    hand = by_hand(net, x.numpy())
    slope = np.polyfit(range(200), hand, 1)[0]
    one, two = only(scan(Reader(fused, 24).double(), x)), only(scan(net, x))
    assert (one.kind, one.steps, two.kind, two.steps) == ("rnn-tanh", 200, "cell", 200)
    for found in (one, two):
        assert found.rate.value == pytest.approx(slope, rel=0.02, abs=2e-3)
        for lag, value in zip(found.lags, found.decades, strict=True):
            assert value.value == pytest.approx(hand[lag], abs=0.35), lag
        below = [lag for lag, value in enumerate(hand) if value < -2]
        if below:
            assert abs(found.horizon - below[0]) <= 0.1 * below[0] + 2
        else:
            assert found.horizon is None


# ------------------------------------------------- fused against autograd


def cells(fused: nn.RNNBase, layer: int, suffix: str) -> Any:
    """Returns a function (x, state) → state, from torch's own single-step cells."""

    def weight(name: str) -> Tensor | None:
        return getattr(fused, f"{name}_l{layer}{suffix}", None)

    given = [weight(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    function = {
        "RNN_TANH": torch.rnn_tanh_cell,
        "RNN_RELU": torch.rnn_relu_cell,
        "GRU": torch.gru_cell,
        "LSTM": None,  # torch's has no projection
    }[fused.mode]
    smaller = weight("weight_hr")

    def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if fused.mode != "LSTM":
            return (function(x, state[0], *given),)
        z = nn.functional.linear(x, given[0], given[2])
        z = z + nn.functional.linear(state[0], given[1], given[3])
        i, f, g, o = z.chunk(4, 1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if smaller is None else h @ smaller.T), c

    return step


def gradients(
    step: Any, x: Tensor, state: tuple[Tensor, ...], seed: int
) -> tuple[list[list[float]], Tensor]:
    """Returns the norms of ∂⟨v, h_T⟩/∂h by lag and group, and all states."""
    hidden = []
    for now in x:
        state = tuple(one.clone().requires_grad_() for one in step(now, state))
        hidden.append(state[0])
    vector = direction(hidden[-1], seed)
    found = torch.autograd.grad(hidden[-1], hidden[:-1], vector)
    return norms_of(vector, *found[::-1]), torch.stack(hidden).detach()


FUSED: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    "lstm": (nn.LSTM, {"num_layers": 2}),
    "lstm, projected": (nn.LSTM, {"proj_size": 3, "bidirectional": True}),
    "lstm, no bias": (nn.LSTM, {"bias": False, "batch_first": True}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "gru, no bias": (nn.GRU, {"bias": False, "batch_first": True}),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_replayed_kernel_has_the_gradients_of_single_steps(name: str) -> None:
    build, options = FUSED[name]
    torch.manual_seed(1)
    net = build(4, 6, **options).double()
    x = noise(9, 5, 4).double()
    ways = 2 if net.bidirectional else 1
    shape = (net.num_layers * ways, 5)
    h = noise(*shape, net.proj_size or 6, seed=1).double()
    states = (h, noise(*shape, 6, seed=2).double()) if net.mode == "LSTM" else (h,)
    given = states if net.mode == "LSTM" else h
    out, _ = net(x.transpose(0, 1) if net.batch_first else x, given)
    out = out.transpose(0, 1) if net.batch_first else out
    args = (
        x.transpose(0, 1) if net.batch_first else x, given, net._flat_weights, net.bias,
        net.num_layers, 0.0, True, net.bidirectional, net.batch_first,
    )  # fmt: skip
    kind = net.mode.lower()
    found = replay(kernel(kind, args), out, seed=7)

    assert len(found) == net.num_layers * ways
    layered = x
    for layer in range(net.num_layers):
        made = []
        for way, suffix in enumerate(("", "_reverse")[:ways]):
            place = layer * ways + way
            step = cells(net, layer, suffix)
            start = tuple(s[place] for s in states)
            source = layered.flip(0) if way else layered
            norms, hidden = gradients(step, source, start, 7 + place)
            made.append(hidden.flip(0) if way else hidden)
            label = f"l{layer}" if net.num_layers > 1 else ""
            lags = found[f"{label} reverse".strip() if way else label]
            for seen, expected in zip(lags.logs, norms, strict=True):
                assert [10**one for one in seen] == pytest.approx(expected, rel=1e-9)
        layered = torch.cat(made, -1)
    assert torch.allclose(layered, out, atol=1e-10)


def test_packed_sequences_are_replayed_where_they_are_longest() -> None:
    torch.manual_seed(2)
    net = nn.GRU(4, 6).double()
    whole = noise(7, 2, 4).double()
    parts = [whole[:, 0], whole[:, 1], noise(3, 4, seed=5).double()]
    packed = pack_sequence(parts)
    zeros = torch.zeros(1, 3, 6).double()
    rest = (net._flat_weights, True, 1, 0.0, True, False)
    one = replay(
        kernel("gru", (packed.data, packed.batch_sizes, zeros, *rest)), None, 3
    )
    two = replay(kernel("gru", (whole, zeros[:, :2], *rest, False)), None, 3)

    assert one[""].logs == two[""].logs
    assert one[""].steps == 7


def test_a_gradient_far_below_the_range_of_floats_is_still_measured() -> None:
    torch.manual_seed(3)
    net = nn.RNN(4, 8, batch_first=True)
    with_radius(net.weight_hh_l0, 1e-3)
    found = only(scan(Reader(net, 8), noise(4, 300, 4)))

    assert found.longest.value < -700
    assert found.rate.value == pytest.approx(found.longest.value / 299, rel=0.02)
    assert found.horizon == 1


def rails(net: nn.LSTM, x: Tensor) -> tuple[list[float], list[float]]:
    """Returns the share of each gate's values on its low and high rail, by numpy."""
    net = copy.deepcopy(net).double()
    size = net.hidden_size
    step = cells(net, 0, "")
    state = (torch.zeros(len(x), size).double(), torch.zeros(len(x), size).double())
    low, high = np.zeros(4), np.zeros(4)
    for now in x.double().unbind(1):
        z = now @ net.weight_ih_l0.T + state[0] @ net.weight_hh_l0.T
        z = (z + net.bias_ih_l0 + net.bias_hh_l0).detach().numpy()
        for gate, part in enumerate(np.split(z, 4, axis=1)):
            if gate == 2:
                flat = 1 - np.tanh(part) ** 2 < 0.05
            else:
                s = 1 / (1 + np.exp(-part))
                flat = s * (1 - s) < 0.05 * 0.25
            low[gate] += (flat & (part < 0)).sum() / (x[..., 0].numel() * size)
            high[gate] += (flat & (part > 0)).sum() / (x[..., 0].numel() * size)
        state = step(now, state)
    return list(low), list(high)


def test_saturated_gates_are_counted_inside_the_kernel() -> None:
    torch.manual_seed(4)
    net = nn.LSTM(4, 8, batch_first=True)
    with torch.no_grad():
        net.weight_ih_l0.mul_(12)
    x = noise(6, 20, 4)
    found = only(scan(Reader(net, 8), x))

    low, high = rails(net, x)
    names = [gate.name for gate in found.gates]
    assert names == ["input", "forget", "cell", "output"]
    assert [g.saturated_low for g in found.gates] == pytest.approx(low)
    assert [g.saturated_high for g in found.gates] == pytest.approx(high)
    assert max(low) > 0.1


# -------------------------------------------------------------------- loops


def test_a_written_loop_has_the_gradients_of_its_states() -> None:
    torch.manual_seed(5)
    net, x = Plain(10).double(), noise(6, 12, 4).double()
    found = only(scan(net, x))

    states = net.states(x)[:-1]
    vector = direction(states[-1], 0)
    seen = torch.autograd.grad(states[-1], states[:-1], vector)
    expected = grouped(norms_of(vector, *seen[::-1]))
    assert (found.layer, found.lags) == ("rec", tuple(range(11)))
    for value, row in zip(found.decades, expected, strict=True):
        assert value.value == pytest.approx(sum(row) / len(row), abs=1e-9)


@pytest.mark.parametrize("build", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("every", [False, True])
def test_torchs_cells_are_found(build: Any, every: bool) -> None:
    torch.manual_seed(6)
    found = only(scan(Loop(build(4, 8), 8, every=every), noise(5, 10, 4)))

    kind = "cell" if build is nn.RNNCell else "gated-cell"
    assert (found.layer, found.kind) == ("cell", kind)
    assert found.steps in (9, 10)
    assert found.last_only is (not every)
    assert found.longest.value < -1


@pytest.mark.parametrize("build", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("every", [False, True])
def test_it_is_known_whether_the_loss_reads_the_last_state_alone(
    build: Any, every: bool
) -> None:
    torch.manual_seed(7)
    cell = build(4, 8, batch_first=True)
    found = only(scan(Reader(cell, 8, every=every), noise(5, 10, 4)))

    assert found.last_only is (not every)


class Repeated(nn.Module):
    """One hidden layer applied many times, without and with a skip around it."""

    def __init__(self, *, skip: bool) -> None:
        super().__init__()
        self.stem, self.layer, self.head = (nn.Linear(6, 6) for _ in range(3))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(8):
            made = torch.tanh(self.layer(x))
            x = x + made if self.skip else made
        return self.head(x)


@pytest.mark.parametrize("skip", [False, True])
def test_a_layer_applied_many_times_reads_no_sequence(skip: bool) -> None:
    assert scan(Repeated(skip=skip), noise(4, 6)).recurrences == ()


def test_the_measurement_of_a_loop_changes_no_other_figure() -> None:
    torch.manual_seed(8)
    net = Plain(8)
    given = [batch(noise(32, 8, 4, seed=seed)) for seed in range(2)]
    flow = scan_all(net, given)

    out = net(given[0].args[0])
    again = scan_all(net, given[:1])
    assert again.recurrences == flow.recurrences
    assert all(p.grad is None for p in net.parameters())
    # The gradient at the head is the cotangent, not that of the lags.
    assert out.shape == (32, 3)
    head = next(row for row in flow.layers if row.path == "head")
    assert head.attenuation.value == pytest.approx(0.0, abs=1e-6)


# ------------------------------------------------------------ batches of any size


def dealt(x: Tensor, sizes: tuple[int, ...]) -> list[Any]:
    """Returns batches of such sizes."""
    return [batch(part) for part in torch.split(x, list(sizes))]


@pytest.mark.parametrize("sizes", [(16, 16), (8,) * 4, (12, 12, 8, 8), (64,)])
@pytest.mark.parametrize("build", [nn.RNNCell, nn.LSTMCell, nn.GRU])
def test_small_batches_say_what_one_of_32_says(
    build: Any, sizes: tuple[int, ...]
) -> None:
    torch.manual_seed(9)
    kernel = build is nn.GRU
    cell = build(4, 8, batch_first=True) if kernel else build(4, 8)
    net = (Reader if kernel else Loop)(cell, 8).double()
    x = noise(64, 7, 4).double()
    whole = only(scan_all(net, dealt(x[:32], (32,))))
    parts = only(scan_all(net, dealt(x[: sum(sizes)], sizes)))

    assert (parts.kind, parts.lags, parts.last_only) == (whole.kind, whole.lags, True)
    for one, two in zip(parts.decades, whole.decades, strict=True):
        assert (one.value, one.lo) == pytest.approx((two.value, two.lo), abs=1e-6)


def test_sequences_of_another_length_are_left_out_of_the_pool() -> None:
    torch.manual_seed(10)
    net = Plain(8).double()
    x = noise(16, 9, 4).double()
    first = only(scan_all(net, [batch(x[:8])]))
    both = only(scan_all(net, [batch(x[:8]), batch(x[8:, :7])]))

    assert both.lags == first.lags
    assert both.decades == first.decades
