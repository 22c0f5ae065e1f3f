"""Models whose wiring or weights are out of the ordinary."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fixtures import batches as inputs
from fixtures import models
from tests.probe.scans import (
    decades,
    l2,
    layer,
    noise,
    parameters,
    scan,
    scan_all,
)
from vgaudit.data.batch import Batch
from vgaudit.flow import GradientFlow
from vgaudit.probe.step import cotangent


def fixture(name: str, size: int = 6) -> GradientFlow:
    return scan_all(
        getattr(models, name)(), [Batch(args=inputs.inputs(name, size), size=size)]
    )


def zeros(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


# ------------------------------------------------------------ connections


def test_a_detached_branch_is_told_from_one_that_never_ran() -> None:
    found = parameters(fixture("detached_branch"))

    state = {
        name: (figures.connected, figures.called) for name, figures in found.items()
    }
    assert state["main.0.weight"] == (True, True)
    assert state["detached.0.weight"] == (False, True)
    assert state["unused.weight"] == (False, False)
    flow = fixture("detached_branch")
    assert layer(flow, "detached.0").attenuation is None
    assert layer(flow, "detached.0").depth is None
    assert layer(flow, "main.0").depth == 1
    gaps = {gap.path: gap.reason for gap in flow.not_measured}
    assert gaps["detached.1"] == (
        "its gradient: it runs without one, or in place on a view"
    )


def test_a_weight_used_without_its_module_is_called() -> None:
    class Borrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden = nn.Linear(6, 6), nn.Linear(6, 6)
            self.unused = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) @ self.hidden.weight.detach()

    found = parameters(scan(Borrowing(), noise(4, 6)))

    assert (found["hidden.weight"].connected, found["hidden.weight"].called) == (
        False,
        True,
    )
    assert not found["unused.weight"].called


def test_a_weight_used_by_a_function_is_a_layer() -> None:
    class Borrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.first(x)) @ self.hidden.weight

    flow = scan(Borrowing(), noise(4, 6))

    assert [row.path for row in flow.layers if row.weighted] == ["first", "hidden"]
    assert layer(flow, "hidden").attenuation.value == pytest.approx(0.0, abs=1e-6)


def test_a_linear_layer_of_two_operations_is_one_row() -> None:
    """Torch multiplies and adds apart where the input does not lie in one piece."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tokens, self.channels = nn.Linear(5, 5), nn.Linear(6, 6)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.tokens(x.transpose(1, 2))).transpose(1, 2)
            return self.attention(*[self.channels(x)] * 3)[0]

    net, x = Mixer().double(), noise(3, 5, 6).double()
    flow = scan(net, x)

    assert [row.path for row in flow.layers] == [
        "tokens", "relu#1", "channels", "attention", "attention.out_proj",
    ]  # fmt: skip
    assert {p.name for p in layer(flow, "tokens").parameters} == {
        "tokens.weight",
        "tokens.bias",
    }
    assert {p.name for p in layer(flow, "attention").parameters} == {
        "attention.in_proj_weight",
        "attention.in_proj_bias",
    }
    made = net.tokens(x.transpose(1, 2))
    rest = torch.relu(made).transpose(1, 2)
    out = net.attention(*[net.channels(rest)] * 3)[0]
    vector = cotangent(out, 0, 0, 0)
    (at,) = torch.autograd.grad(out, made, vector)
    assert layer(flow, "tokens").attenuation.value == pytest.approx(
        decades(at, l2(vector)), abs=1e-10
    )


def test_tied_weights_are_one_parameter_of_several_names() -> None:
    flow = fixture("tied_embeddings")
    weight = parameters(flow)["embedding.weight"]

    assert weight.tied == ("head.weight",)
    assert "head.weight" not in parameters(flow)
    paths = [row.path for row in flow.layers if row.weighted]
    assert paths == ["embedding", "hidden", "head"]


def test_a_shared_module_owns_its_weights_once() -> None:
    flow = fixture("reused_module")

    steps = [row for row in flow.layers if row.path == "step"]
    assert [row.call for row in steps] == [0, 1, 2, 3]
    assert [len(row.parameters) for row in steps] == [2, 0, 0, 0]
    assert len({row.attenuation.value for row in steps}) == 4


def test_weights_that_are_made_of_others_belong_to_their_layer() -> None:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    net = nn.Sequential(norm, nn.Tanh(), nn.Linear(6, 3))
    flow = scan(net, noise(4, 6))

    assert [row.path for row in flow.layers] == ["0", "1", "2"]
    assert {p.name for p in layer(flow, "0").parameters} == {
        "0.bias",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
    }


# ------------------------------------------------------------ zeros by design


def test_a_zero_head_is_replaced_and_learns() -> None:
    flow = fixture("zero_head_vit")

    assert [(b.name, b.layer, b.learns, b.replaced) for b in flow.blockers] == [
        ("head.weight", "head", True, True)
    ]
    assert math.isfinite(flow.attenuation.value)
    assert not any(row.zero_gradient for row in flow.layers)
    # Of the replaced weights no gradient is zero throughout.
    for name, figures in parameters(flow).items():
        assert figures.zero_fraction < 1.0, name
        assert figures.grad_norm > 0, name


def test_two_zero_layers_in_a_row_never_learn() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 6), nn.ReLU(), zeros(nn.Linear(6, 6)), zeros(nn.Linear(6, 3))
    )
    flow = scan(net, noise(4, 6))

    found = {b.name: (b.learns, b.replaced) for b in flow.blockers}
    assert found == {"2.weight": (False, True), "3.weight": (False, True)}
    assert math.isfinite(flow.attenuation.value)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv1 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv2, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return self.head(x.mean((2, 3)))


def test_a_zero_gamma_on_a_residual_branch_learns_and_stays() -> None:
    net = Residual()
    nn.init.zeros_(net.norm2.weight)
    flow = scan(net, noise(4, 3, 5, 5))

    assert [(b.name, b.learns, b.replaced) for b in flow.blockers] == [
        ("norm2.weight", True, False)
    ]
    assert layer(flow, "conv1").zero_gradient
    assert not layer(flow, "stem").zero_gradient
    assert math.isfinite(flow.attenuation.value)


def test_layer_scale_is_an_offset_and_no_decay() -> None:
    flow = fixture("layer_scale_net")

    assert abs(flow.attenuation.value) < 1
    assert len(flow.branches) == 4
    for branch in flow.branches:
        assert branch.offset.value < -5.5
        assert abs(branch.decay.value) < 1
        assert len(branch.layers) == 2
    assert flow.blockers == ()


def test_a_branch_is_measured_between_its_ends() -> None:
    net, x = Residual().double(), noise(4, 3, 5, 5).double()
    flow = scan(net, x)

    stem = net.stem(x)
    one = net.conv1(stem)
    two = net.conv2(torch.relu(net.norm1(one)))
    joined = stem + net.norm2(two)
    out = net.head(joined.mean((2, 3)))
    at = torch.autograd.grad(out, [one, two, joined, stem], cotangent(out, 0, 0, 0))
    (branch,) = flow.branches
    assert branch.layers == ("conv1", "conv2")
    assert branch.decay.value == pytest.approx(decades(at[0], l2(at[1])), abs=1e-10)
    assert branch.entry == "stem"
    assert branch.offset.value == pytest.approx(decades(at[1], l2(at[2])), abs=1e-10)


# ------------------------------------------------------------ normalisation


def test_untouched_batch_norm_is_uncalibrated_in_eval_mode_only() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    assert scan(net, noise(4, 6), mode="eval").uncalibrated == ("1",)
    assert scan(net, noise(4, 6)).uncalibrated == ()
    net.train()
    net(noise(8, 6))
    assert scan(net, noise(4, 6), mode="eval").uncalibrated == ()


# ------------------------------------------------------------ other weights


def test_complex_weights_are_measured_by_their_modulus() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 6, dtype=torch.complex64), nn.Linear(6, 3, dtype=torch.complex64)
    )
    x = torch.complex(noise(4, 6), noise(4, 6, seed=1))
    flow = scan(net, x)

    hidden = net[0](x)
    out = net[1](hidden)
    vector = cotangent(out, 0, 0, 0)
    at, weight = torch.autograd.grad(out, [hidden, net[0].weight], vector)
    expected = math.log10(float(at.abs().square().sum().sqrt() / vector.abs().norm()))
    assert layer(flow, "0").attenuation.value == pytest.approx(expected, abs=1e-5)
    assert parameters(flow)["0.weight"].grad_norm == pytest.approx(
        float(weight.abs().square().sum().sqrt()), rel=1e-5
    )


def test_sparse_gradients_of_embeddings_are_those_of_dense_ones() -> None:
    def net(*, sparse: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Embedding(20, 6, sparse=sparse), nn.Tanh(), nn.Linear(6, 2)
        )

    x = torch.tensor([[1, 1, 3], [0, 3, 3]])
    dense, sparse = scan(net(sparse=False), x), scan(net(sparse=True), x)

    one, two = parameters(sparse)["0.weight"], parameters(dense)["0.weight"]
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-6)
    assert one.zero_fraction == two.zero_fraction == 17 / 20
    assert [r.attenuation for r in sparse.layers] == [
        r.attenuation for r in dense.layers
    ]


def test_an_embedding_is_the_entry_of_the_data() -> None:
    flow = fixture("tied_embeddings")
    first = layer(flow, "embedding")

    assert first.weighted
    assert first.trunk
    assert first.depth == flow.weight_layers - 1


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (lambda: nn.LSTM(6, 5, 2, bidirectional=True), (7, 3, 6)),
        (lambda: nn.GRU(6, 5), (7, 3, 6)),
        (lambda: nn.RNN(6, 5, nonlinearity="relu"), (7, 3, 6)),
        (lambda: nn.LSTM(6, 5, proj_size=3), (7, 3, 6)),
        (lambda: nn.LSTMCell(6, 5), (3, 6)),
        (lambda: nn.MultiheadAttention(6, 2), None),
        (lambda: nn.Bilinear(6, 6, 4), None),
        (lambda: nn.EmbeddingBag(9, 4), None),
    ],
)
def test_layers_of_all_kinds_are_reached(
    made: Callable[[], nn.Module], shape: tuple[int, ...] | None
) -> None:
    torch.manual_seed(0)
    net = made()
    if isinstance(net, nn.EmbeddingBag):
        args: tuple[Tensor, ...] = (torch.tensor([[1, 2], [3, 4]]),)
    elif shape is not None:
        args = (noise(*shape),)
    else:
        args = tuple(noise(5, 3, 6, seed=s) for s in range(3))
        args = args[:2] if isinstance(net, nn.Bilinear) else args
    flow = scan(net, *args)

    assert all(p.connected and p.called for p in flow.parameters)
    assert {p.name for p in flow.parameters} == {n for n, _ in net.named_parameters()}
    assert any(row.weighted and row.attenuation is not None for row in flow.layers)


def test_fused_recurrent_gates_are_measured() -> None:
    flow = fixture("lstm_classifier")

    assert flow.not_measured == ()
    assert [gate.name for found in flow.recurrences for gate in found.gates] == [
        *("input", "forget", "cell", "output")
    ] * len(flow.recurrences)
    assert {found.layer.partition(" ")[0] for found in flow.recurrences} == {"lstm"}
