"""Weights drawn anew: what their variance and their matrices must be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.probe import probe
from vgaudit.repair.starts import Starts


class Reader(nn.Module):
    """Reads a sequence and answers from the last state."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(x)
        answer: torch.Tensor = self.head(states[:, -1])
        return answer


def starts(model: nn.Module, x: torch.Tensor) -> Starts:
    batch = Batch(args=(x,), labels=torch.zeros(len(x), dtype=torch.long), size=len(x))
    return Starts(model, probe(model, [batch]), [batch])


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_states_meet_an_orthogonal_matrix_in_every_gate(kind, gates) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reader(kind(5, 24, batch_first=True))
        made = starts(model, torch.randn(8, 6, 5))
    fresh, edits = made.begun("reinit", seed=3)

    assert edits == ()
    whole = fresh.cell.weight_hh_l0.detach()
    assert whole.shape == (gates * 24, 24)
    for part in whole.split(24):
        torch.testing.assert_close(part @ part.T, torch.eye(24), atol=1e-5, rtol=0)
    biases = (fresh.cell.bias_ih_l0 + fresh.cell.bias_hh_l0).detach().view(gates, 24)
    # torch stacks input, forget, cell, output; and reset, update, new.
    for number, gate in enumerate(biases):
        keeps = gates > 1 and number == 1
        assert torch.equal(gate, torch.full((24,), 1.0 if keeps else 0.0))


def test_variance_of_a_redrawn_layer_is_that_of_glorot_times_the_gain() -> None:
    model = nn.Sequential(nn.Linear(400, 300), nn.Tanh(), nn.Linear(300, 10))
    fresh, _ = starts(model, torch.randn(16, 400)).begun("reinit", seed=0)

    wanted = (5 / 3) ** 2 * 2 / 700
    found = float(fresh[0].weight.detach().var())
    # 120,000 normal draws: the relative error of a variance is √(2/n) = 0.4 %.
    assert found == pytest.approx(wanted, rel=4 * math.sqrt(2 / 120_000))


def test_one_seed_gives_one_model_and_copies_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    made = starts(model, torch.randn(16, 8))
    one, _ = made.begun("reinit", seed=1)
    with torch.no_grad():
        one[0].weight.zero_()
    again, _ = made.begun("reinit", seed=1)
    other, _ = made.begun("reinit", seed=2)
    fresh, _ = starts(model, torch.randn(16, 8)).begun("reinit", seed=1)

    assert float(again[0].weight.detach().abs().sum()) > 0
    assert torch.equal(again[0].weight, fresh[0].weight)
    assert not torch.equal(again[0].weight, other[0].weight)


def test_options_that_a_model_does_not_fit_are_no_fault_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def treat(*_args: object) -> None:
        raise BadConfig("L of shape (3,)")

    monkeypatch.setattr("vgaudit.repair.starts.treat", treat)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    with pytest.raises(CannotRewrite, match="L of shape"):
        starts(model, torch.randn(16, 8)).begun("rescale", seed=0)
