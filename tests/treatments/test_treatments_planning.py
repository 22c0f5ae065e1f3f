"""Which layer feeds which activation, and what is refused, told from the models."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fixtures import batches, models
from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.treatments.plan import Plan, plan_activations, plan_layers
from vgaudit.treatments.recorded import record

AR = ConvertOptions(to="ar")
ADACT = ConvertOptions(to="adact")


def planned(
    model: nn.Module, *shape: int, options: ConvertOptions = AR
) -> tuple[list[str], dict[str, str]]:
    """Returns the planned layers, and the reason of each refusal by activation."""
    plan = _plan(model, torch.randn(4, *shape), options)
    return [t.path for t in plan.layers], {r.path: r.reason for r in plan.refusals}


def replaced(model: nn.Module, *shape: int) -> tuple[int, dict[str, str]]:
    plan = _plan(model, torch.randn(4, *shape), ADACT)
    return len(plan.activations), {r.path: r.reason for r in plan.refusals}


def _plan(model: nn.Module, x: Tensor, options: ConvertOptions) -> Plan:
    graph = record(model, Batch(args=(x,), size=4))
    plan = plan_activations if options.to == "adact" else plan_layers
    return plan(graph, model, options)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("deep_sigmoid_mlp", [f"layers.{2 * n}" for n in range(10)]),
        ("functional_activations", [f"layers.{n}" for n in range(7)]),
        ("reused_module", ["step"]),
        ("tiny_transformer", ["blocks.0.linear1", "blocks.1.linear1"]),
        ("layer_scale_net", [f"blocks.{n}.up" for n in range(4)]),
        ("two_outputs", ["trunk.0"]),
        ("lstm_classifier", ["lstm"]),
        ("inplace_relu_cnn", ["conv1"]),
    ],
)
def test_layers_that_feed_an_activation(name: str, layers: list[str]) -> None:
    model = getattr(models, name)()
    graph = record(model, Batch(args=batches.inputs(name), size=8))
    assert [t.path for t in plan_layers(graph, model, AR).layers] == layers


def test_dropout_pooling_and_reshapes_are_passed() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(4 * 9, 3),
    )
    assert planned(model, 1, 8, 8)[0] == ["0"]


def test_a_norm_in_between_refuses_unless_forced() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)
    )
    layers, refusals = planned(model, 8)
    assert layers == []
    assert "its scale cancels in 1" in refusals["2"]
    forced = ConvertOptions(to="ar", normed=True)
    assert planned(model, 8, options=forced)[0] == ["0"]


def test_an_output_activation_is_left() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    layers, refusals = planned(model, 8)
    assert layers == ["0"]
    assert "output activation" in refusals["3"]
    assert replaced(model, 8) == (1, refusals)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))


def test_gates_are_left() -> None:
    layers, refusals = planned(Gated(), 8)
    assert layers == []
    assert all("gate" in reason for reason in refusals.values())
    assert len(refusals) == 2


class Excited(nn.Module):
    """Squeeze and excitation: the sigmoid gates what the tanh gives."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.squeeze = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.value(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


def test_what_a_gate_multiplies_is_no_gate() -> None:
    layers, refusals = planned(Excited(), 3, 5, 5)
    assert layers == ["value"]
    assert list(refusals) == ["sigmoid#1"]


class Elsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.head(torch.tanh(z) + z)


def test_an_output_that_is_used_twice_is_left() -> None:
    layers, refusals = planned(Elsewhere(), 8)
    assert layers == []
    assert "also used elsewhere" in refusals["tanh#1"]
    assert replaced(Elsewhere(), 8)[0] == 1


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head.weight = self.hidden.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(x)))


def test_a_weight_that_is_also_the_heads_is_left() -> None:
    layers, refusals = planned(Tied(), 8)
    assert layers == []
    assert "also used where no activation follows" in refusals["tanh#1"]


class Outside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(x, self.hidden.weight, self.hidden.bias)))


def test_a_weight_used_outside_its_module_is_left() -> None:
    layers, refusals = planned(Outside(), 8)
    assert layers == []
    assert "outside its forward" in refusals["tanh#1"]


def test_a_computed_weight_is_left() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 2))
    layers, refusals = planned(model, 8)
    assert layers == []
    assert "computed" in refusals["1"]


class TanhGelu(nn.Module):
    """A user's own activation, of several operations."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))


def test_a_users_own_activation_is_one_activation() -> None:
    model = nn.Sequential(nn.Linear(8, 8), TanhGelu(), nn.Linear(8, 2))
    assert planned(model, 8) == (["0"], {})
    assert replaced(model, 8) == (1, {})


def test_globs_choose_layers_and_activations() -> None:
    model = nn.Sequential(
        OrderedDict(
            a=nn.Linear(8, 8),
            f=nn.Tanh(),
            b=nn.Linear(8, 8),
            g=nn.Tanh(),
            head=nn.Linear(8, 2),
        )
    )
    only = ConvertOptions(to="ar", layers=("a*",))
    assert planned(model, 8, options=only)[0] == ["a"]
    but = ConvertOptions(to="ar", skip=("g",))
    layers, refusals = planned(model, 8, options=but)
    assert layers == ["a"]
    assert refusals == {"g": "left out by --layers or --skip"}


def test_the_graph_is_torch_fx_and_names_its_parameters() -> None:
    model = models.functional_activations()
    x = batches.inputs("functional_activations")
    graph = record(model, Batch(args=x, size=8))
    assert isinstance(graph, fx.Graph)
    named = {str(n.target) for n in graph.nodes if n.op == "get_attr"}
    assert {name for name, _ in model.named_parameters()} <= named


def test_recording_leaves_the_model_as_it_is() -> None:
    model = models.inplace_relu_cnn().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = batches.inputs("inplace_relu_cnn")
    state = torch.get_rng_state()
    record(model, Batch(args=x, size=8))
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert "vgaudit_steps" not in model.__dict__
