"""The three steps behind the protocol of methods: what they take and write."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import LOSSES, resolve_loss
from vgaudit.errors import CannotRewrite, CannotRun, VgauditError
from vgaudit.nn import PiecewiseLinear, auto_rotate
from vgaudit.retraining import RetrainOptions
from vgaudit.training.adact import ENTRY
from vgaudit.training.adact.method import Classic, targets_of
from vgaudit.training.method import Setup
from vgaudit.training.methods import entry

OPTIONS = RetrainOptions(method="adact", solver="classic")


def batch(count: int = 120) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, 3, generator=generator)
    labels = (x[:, 0, 0] * x[:, 1, 1] > 0).long()
    return Batch(args=(x,), labels=labels, size=count)


def model(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    parts = (nn.Linear(6, 8), activation or nn.ReLU(), nn.Linear(8, 2))
    return nn.Sequential(nn.Flatten(), *parts)


def setup(net: nn.Module, data: Batch, *, loss: str = "cross-entropy") -> Setup:
    return Setup(
        model=net,
        loss=resolve_loss(loss, labelled=True),
        example=data,
        options=OPTIONS,
        epochs=10,
        steps=10,
        device=torch.device("cpu"),
        observe=lambda: None,
        validate=None,
        say=lambda _text: None,
    )


def ready(net: nn.Module, data: Batch) -> nn.Module:
    return ENTRY.prepare(net, [data], OPTIONS).model


def squared_error(net: nn.Module, data: Batch) -> float:
    target = nn.functional.one_hot(data.labels, 2)
    return (net(*data.args) - target).square().sum(1).mean().item()


def step(method: Classic, data: Batch, *, parts: int = 1) -> Any:
    return method.step(data, rows=torch.arange(data.size), parts=parts)


def test_it_is_the_classic_solver_of_adact() -> None:
    assert entry(OPTIONS) is ENTRY
    assert ENTRY.whole(OPTIONS)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_training_lowers_the_error_of_the_ordinary_model(activation: type) -> None:
    data = batch()
    net = ready(model(activation()), data)
    method = Classic(setup(net, data))
    errors = []
    for _ in range(8):
        outcome = step(method, data)
        assert outcome.skipped == ""
        errors.append(squared_error(net, data))
        assert errors[-1] == pytest.approx(
            method.figures()["squared error after OWO"], 1e-3
        )
    assert all(b <= a * 1.001 for a, b in pairwise(errors))
    assert errors[-1] < 0.8 * errors[0]
    assert [type(m) for m in net][:2] == [nn.Flatten, nn.Linear]


def test_the_loss_is_that_of_the_model_before_the_step() -> None:
    data = batch()
    net = ready(model(), data)
    before = nn.functional.cross_entropy(net(*data.args), data.labels).item()
    method = Classic(setup(net, data))
    assert step(method, data).loss == pytest.approx(before, 1e-6)


def test_parts_change_nothing() -> None:
    data = batch()
    nets = [ready(model(), data) for _ in range(2)]
    for net, parts in zip(nets, (1, 7), strict=True):
        method = Classic(setup(net, data))
        step(method, data, parts=parts)
        step(method, data, parts=parts)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_resumed_training_is_bit_equal() -> None:
    data = batch()
    net = ready(model(nn.Tanh()), data)
    method = Classic(setup(net, data))
    for _ in range(3):
        step(method, data)
    again = copy.deepcopy(net)
    state = copy.deepcopy(method.state_dict())
    resumed = Classic(setup(again, data))
    resumed.load_state_dict(state)
    for each in (method, resumed):
        step(each, data)
        step(each, data)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_dropout_is_off_and_the_mode_stays() -> None:
    data = batch()
    net = ready(nn.Sequential(nn.Flatten(), nn.Dropout(0.9), *model()[1:]), data)
    net.train()
    method = Classic(setup(net, data))
    step(method, data)
    assert all(module.training for module in net.modules())
    assert method.figures()["squared error after OWO"] < 0.6


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    data = batch()
    net = ready(model(), data)
    method = Classic(setup(net, data))
    before = copy.deepcopy(net.state_dict())
    data.args[0][5] = math.nan
    outcome = step(method, data)
    assert outcome.skipped == "the loss is nan"
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert method.figures() == {}


class Scaled(nn.Module):
    """Computes more than its layers say."""

    def __init__(self) -> None:
        super().__init__()
        self.net = model(PiecewiseLinear(8))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.net(x)


def frozen() -> nn.Module:
    net = model(PiecewiseLinear(8))
    net[1].weight.requires_grad_(False)
    return net


def rotated() -> nn.Module:
    net = model(PiecewiseLinear(8))
    auto_rotate(net[1])
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(6, 2)),
            "1 linear layers: the classic solver needs a hidden one and an output",
        ),
        (
            nn.Sequential(nn.Conv1d(2, 2, 1), *model()),
            "'0' is a Conv1d: the classic solver trains one hidden linear layer",
        ),
        (
            rotated(),
            "'1' is an AutoRotatedLinear: the classic solver trains one hidden linear "
            "layer",
        ),
        (
            nn.Sequential(*model(PiecewiseLinear(8)), PiecewiseLinear(2)),
            "2 piecewise linear activations: the classic solver needs exactly one",
        ),
        (Scaled(), "the model computes more than linear, activation, linear"),
        (frozen(), "parameters that are frozen"),
    ],
)
def test_models_that_are_more_than_one_hidden_layer(
    net: nn.Module, message: str
) -> None:
    with pytest.raises(CannotRewrite) as caught:
        ready(net, batch())
    assert caught.value.message == message
    assert caught.value.hint


def test_tokens_are_not_samples() -> None:
    data = Batch(args=(torch.randn(4, 5, 6),), labels=torch.zeros(4).long(), size=4)
    net = nn.Sequential(nn.Linear(6, 8), PiecewiseLinear(), nn.Linear(8, 2))
    with pytest.raises(VgauditError) as caught:
        ready(net, data)
    assert caught.value.message == (
        "the hidden layer is called on [(4, 5, 6)], not once on samples by features"
    )


def test_targets() -> None:
    output = torch.zeros(3, 2)

    def of(name: str, labels: Any, out: Tensor = output) -> list[Any]:
        return targets_of(Loss(name, LOSSES[name]), labels, out).tolist()

    assert of("cross-entropy", torch.tensor([1, 0, 1])) == [[0, 1], [1, 0], [0, 1]]
    assert of("mse", torch.tensor([1.0, 2, 3]), torch.zeros(3, 1)) == [[1], [2], [3]]
    zeros_and_ones = torch.tensor([[0.0, 1], [1, 1], [0, 0]])
    assert of("bce-with-logits", zeros_and_ones) == [[-1, 1], [1, 1], [-1, -1]]
    for labels in (torch.tensor([1, 0, -100]), None, torch.zeros(4)):
        with pytest.raises(CannotRun) as caught:
            of("cross-entropy", labels)
        assert caught.value.message.startswith("the classic solver needs a target for")
