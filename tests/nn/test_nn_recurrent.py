"""Auto-rotated LSTM, GRU and RNN against cells written out step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.nn import oracles
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import (
    AutoRotatedGRU,
    AutoRotatedLSTM,
    Inputs,
    Limit,
    auto_rotate,
    bake,
    fold_,
)

EXACT = 1e-12

SHAPES = {
    "plain": {},
    "deep": {"num_layers": 3, "dropout": 0.0},
    "both-ways": {"num_layers": 2, "bidirectional": True},
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
}
LAYERS = [
    pytest.param(kind, options, id=f"{kind.__name__}-{name}")
    for kind in (nn.LSTM, nn.GRU, nn.RNN)
    for name, options in SHAPES.items()
]
LAYERS.append(
    pytest.param(nn.LSTM, {"proj_size": 3, "num_layers": 2}, id="LSTM-projected")
)


@pytest.mark.parametrize(
    ("kind", "cell"), [(nn.LSTM, oracles.lstm), (nn.GRU, oracles.gru)]
)
def test_gates_are_rho_times_the_plain_gates(kind, cell) -> None:
    layer = kind(4, 6)
    x = torch.randn(5, 3, 4)
    rotated = auto_rotate(copy.deepcopy(layer), inputs=Inputs.moments(0.0, 1.0))

    wanted = cell(layer, x, rotated.rho()[0])
    assert (rotated(x)[0] - wanted).abs().max().item() < EXACT
    # The oracle itself, without rotation, is the plain layer.
    ones = torch.ones_like(rotated.rho()[0])
    assert (layer(x)[0] - cell(layer, x, ones)).abs().max().item() < EXACT


def test_denominator_of_a_gate_written_out() -> None:
    """|b| + k·√(Σ W_ih²·std² + Σ W_hh²/3): the state as if uniform in (−1, 1)."""
    layer = nn.LSTM(3, 5)
    rotated = auto_rotate(layer, inputs=Inputs.moments(0.5, 2.0))
    level = layer.weight_ih_l0.sum(1) * 0.5 + layer.bias_ih_l0 + layer.bias_hh_l0
    power = 4 * layer.weight_ih_l0.square().sum(1)
    power = power + layer.weight_hh_l0.square().sum(1) / 3

    wanted = level.abs() + 3 * power.sqrt()
    assert (rotated.denominator()[0] - wanted).abs().max().item() < EXACT


def test_interval_bounds_every_gate_of_every_state() -> None:
    layer = nn.GRU(3, 4, num_layers=2)
    rotated = auto_rotate(layer, limit=2.5, denominator="interval", inputs=(0, 1))
    for level, suffix in enumerate(("_l0", "_l1")):
        rows = rotated.rho()[level]
        bias = getattr(layer, "bias_ih" + suffix) + getattr(layer, "bias_hh" + suffix)
        from_x = getattr(layer, "weight_ih" + suffix)
        from_h = getattr(layer, "weight_hh" + suffix)
        low, high = (0.0, 1.0) if level == 0 else (-1.0, 1.0)
        middle = from_x.sum(1) * (low + high) / 2 + bias
        reach = from_x.abs().sum(1) * (high - low) / 2 + from_h.abs().sum(1)

        assert ((middle.abs() + reach) * rows - 2.5).abs().max().item() < EXACT


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_folding_and_baking(kind, options) -> None:
    layer = kind(4, 6, **options)
    x, keys = torch.randn(5, 3, 4), list(layer.state_dict())
    rotated = auto_rotate(layer)
    before = rotated(x)[0]

    folded = fold_(copy.deepcopy(rotated))
    assert (folded(x)[0] - before).abs().max().item() < EXACT
    assert (folded.rho() - 1).abs().max().item() < EXACT

    plain = bake(rotated)
    assert type(plain) is kind
    assert list(plain.state_dict()) == keys
    assert torch.equal(plain(x)[0], before)


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_preserving_is_exact_to_the_last_bit(kind, options) -> None:
    layer = kind(4, 6, **options)
    x = torch.randn(5, 3, 4)
    before = layer(x)[0]
    rotated = auto_rotate(layer, limit=Limit("preserve"))

    assert torch.equal(rotated(x)[0], before)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_euler_identity_over_the_rows_of_all_four_tensors(kind) -> None:
    rotated = auto_rotate(kind(4, 6, num_layers=2))
    rotated(torch.randn(5, 3, 4))[0].sum().backward()
    for suffix in ("_l0", "_l1"):
        radial, size = torch.zeros(()), torch.zeros(())
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            parameter = getattr(rotated, name + suffix)
            along = (parameter.grad * parameter).detach().reshape(len(parameter), -1)
            radial, size = radial + along.sum(1), size + along.abs().sum(1)

        assert (radial.abs() / size).max().item() < EXACT


def test_default_limits_are_4_for_sigmoid_and_2_for_tanh() -> None:
    lstm, gru = AutoRotatedLSTM(2, 3), AutoRotatedGRU(2, 3)

    assert [4.0] * 6 + [2.0] * 3 + [4.0] * 3 == lstm.limit[0].tolist()
    assert [4.0] * 6 + [2.0] * 3 == gru.limit[0].tolist()
    assert (2, 3 * 3) == AutoRotatedGRU(2, 3, bidirectional=True).limit.shape


def test_packed_sequences_and_given_states_pass_through() -> None:
    layer = auto_rotate(nn.LSTM(4, 6, batch_first=True))
    x, state = torch.randn(3, 5, 4), (torch.rand(1, 3, 6), torch.rand(1, 3, 6))
    lengths = torch.tensor([5, 3, 2])
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    outputs, _ = pad_packed_sequence(layer(packed, state)[0], batch_first=True)
    whole = layer(x, state)[0]

    for row, length in enumerate(lengths):
        assert torch.allclose(outputs[row, :length], whole[row, :length], atol=EXACT)


def test_training_moves_weights_and_rho() -> None:
    layer = fold_(auto_rotate(nn.LSTM(3, 4)))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    x = torch.randn(6, 2, 3)
    first = layer(x)[0].square().mean()
    for _ in range(20):
        optimizer.zero_grad()
        loss = layer(x)[0].square().mean()
        loss.backward()
        optimizer.step()

    assert loss.item() < 0.5 * first.item()
    assert (layer.rho() - 1).abs().max().item() > 1e-3


def test_copies_are_independent() -> None:
    layer = auto_rotate(nn.GRU(3, 4))
    x = torch.randn(2, 1, 3)
    twin = copy.deepcopy(layer)
    before = twin(x)[0]
    with torch.no_grad():
        layer.weight_ih_l0.zero_()

    assert torch.equal(twin(x)[0], before)
    assert not torch.equal(layer(x)[0], before)


def test_relu_cell_is_refused() -> None:
    with pytest.raises(CannotRewrite, match="mode RNN_RELU"):
        auto_rotate(nn.RNN(2, 3, nonlinearity="relu"))


def test_wrong_number_of_inputs_is_refused() -> None:
    with pytest.raises(BadConfig, match="inputs for 5 features, the layer has 2"):
        auto_rotate(nn.LSTM(2, 3), inputs=Inputs.moments(torch.zeros(5), 1.0))
