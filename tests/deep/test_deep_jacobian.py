"""Singular values against the dense Jacobian, and against what is known of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.deep.nets import batch, deep, mlp, normal
from vgaudit.flow import JacobianFlow
from vgaudit.probe.deep.jacobian import Operator
from vgaudit.probe.deep.lanczos import largest_singular_value
from vgaudit.probe.deep.live import end_of


def dense(model: nn.Module, x: Tensor) -> Tensor:
    """Returns the singular values of the Jacobian by torch's own functional API."""
    matrix = torch.func.jacrev(lambda z: model(z[None])[0].reshape(-1))(x)
    return torch.linalg.svdvals(matrix.reshape(matrix.shape[0], -1).double()).detach()


def whole(model: nn.Module, *shape: int) -> tuple[JacobianFlow, Tensor]:
    x = normal(*shape)
    return deep(model, batch(x)).jacobians[0], dense(model.eval(), x[0])


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU])
def test_the_spectrum_of_a_small_net_is_that_of_the_dense_jacobian(
    act: type[nn.Module],
) -> None:
    found, values = whole(mlp(4, 24, act), 8, 24)

    assert len(found.spectrum) == 10
    assert torch.allclose(torch.tensor(found.spectrum).double(), values, rtol=1e-3)
    assert found.mean_square == pytest.approx(float(values.square().mean()), rel=1e-3)
    assert found.condition == found.spectrum[0] / found.spectrum[-1]


def test_a_net_with_few_inputs_is_computed_by_its_columns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 400), nn.Tanh(), nn.Linear(400, 300))
    found, values = whole(model, 4, 6)

    assert len(found.spectrum) == 6
    assert torch.allclose(torch.tensor(found.spectrum).double(), values, rtol=1e-3)


def test_largest_and_mean_of_a_net_too_large_for_the_whole_spectrum() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(300, 400),
        nn.Tanh(),
        nn.Linear(400, 350),
        nn.Tanh(),
        nn.Linear(350, 280),
    )
    found, values = whole(model, 4, 300)

    assert found.spectrum == ()
    assert found.converged
    assert found.largest == pytest.approx(float(values[0]), rel=1e-3)
    exact = float(values.square().mean())
    assert abs(found.mean_square - exact) < 4 * found.mean_square_error
    assert found.mean_square_error < 0.1 * exact


def test_attention_and_recurrence_are_differentiated_twice() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(64, 4, 96, dropout=0.0, batch_first=True)
    found, values = whole(encoder, 2, 9, 64)

    assert found.largest == pytest.approx(float(values[0]), rel=1e-3)

    class Reader(nn.Module):
        """The outputs of an LSTM."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(32, 40, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    found, values = whole(Reader(), 2, 12, 32)

    assert found.largest == pytest.approx(float(values[0]), rel=1e-3)


def test_every_block_has_its_own() -> None:
    class Block(nn.Module):
        """x + c·x, whose Jacobian is (1 + c)·I."""

        def __init__(self, c: float) -> None:
            super().__init__()
            self.inner = nn.Linear(20, 20, bias=False)
            with torch.no_grad():
                self.inner.weight.copy_(c * torch.eye(20))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    model = nn.Sequential(*[Block(c) for c in (0.5, 1.0, 2.0)])
    found = deep(model, batch(normal(4, 20))).jacobians

    assert [j.layer for j in found] == ["", "0", "1", "2"]
    expected = [1.5 * 2 * 3, 1.5, 2.0, 3.0]
    for jacobian, sigma in zip(found, expected, strict=True):
        assert jacobian.largest == pytest.approx(sigma, rel=1e-5)
        assert jacobian.mean_square == pytest.approx(sigma**2, rel=1e-5)


def test_tokens_are_differentiated_from_where_they_are_numbers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 16), nn.Tanh())
    x = torch.randint(50, (3, 5), generator=torch.Generator().manual_seed(0))
    found = deep(model, batch(x)).jacobians[0]

    assert (found.inputs, found.outputs) == (80, 80)
    hidden = model[0](x[:1]).detach()
    values = dense(nn.Sequential(model[1], model[2]), hidden[0])
    assert torch.allclose(torch.tensor(found.spectrum).double(), values, rtol=1e-3)


def test_j_and_its_transpose_belong_together() -> None:
    torch.manual_seed(0)
    x = normal(1, 30).requires_grad_()
    given = x.clone()
    out = mlp(3, 30, nn.Tanh)(given)
    operator = Operator([end_of(given)], [end_of(out)])
    u, v = operator.tangent(1), operator.cotangent(2)

    assert float(operator.forward(u) @ v) == pytest.approx(
        float(u @ operator.backward(v)), rel=1e-4
    )


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_the_iteration_finds_the_norm_of_any_matrix(scale: float) -> None:
    matrix = normal(120, 90, double=True) * scale
    found = largest_singular_value(
        lambda x: matrix @ x, lambda y: matrix.T @ y, normal(90, seed=1, double=True)
    )

    assert found.value == pytest.approx(
        float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3
    )
    assert found.converged


def test_the_iteration_ends_early_where_there_is_nothing_more() -> None:
    matrix = torch.zeros(5, 7, dtype=torch.float64)
    matrix[0, 0] = 3.0
    found = largest_singular_value(
        lambda x: matrix @ x, lambda y: matrix.T @ y, torch.ones(7, dtype=torch.float64)
    )

    assert found.value == pytest.approx(3.0)
    assert not math.isnan(found.value)
