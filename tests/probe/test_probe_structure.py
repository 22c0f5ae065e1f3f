"""The structure read from shapes alone is that of a real scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fixtures import batches as inputs
from fixtures import models
from tests.probe.scans import noise, scan_all
from tests.probe.zoo import ZOO
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.flow import GradientFlow, LayerFlow, Structure
from vgaudit.probe import structure


def key(row: LayerFlow) -> str:
    return row.path if row.call == 0 else f"{row.path} call {row.call + 1}"


def same(found: Structure, flow: GradientFlow) -> None:
    """Compares all that needs no figures."""
    reached = [row for row in flow.layers if row.depth is not None]
    listed = [row for row in found.rows if row.depth is not None]
    assert [row.path for row in listed] == [key(row) for row in reached]
    for one, two in zip(listed, reached, strict=True):
        assert (one.type, one.depth, one.trunk, one.weighted, one.activation) == (
            two.type,
            two.depth,
            two.trunk,
            two.weighted,
            two.activation is not None,
        ), one.path
        assert one.source == two.source, one.path
        assert one.parameters == sum(p.numel for p in two.parameters), one.path
    assert found.weight_layers == flow.weight_layers
    assert found.branches == len(flow.branches)
    unused = {p.name for p in flow.parameters if p.trainable and not p.connected}
    assert set(found.unused) == unused
    assert {gap.path for gap in found.not_measured} == {
        gap.path for gap in flow.not_measured
    }


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"lstm", "googlenet"}))
def test_the_structure_of_real_models_is_that_of_their_scan(name: str) -> None:
    net, args = ZOO[name]()
    given = Batch(args=args, size=args[0].shape[0])

    same(structure(net, given), scan_all(net, [given]))


@pytest.mark.parametrize(
    "name", sorted(set(inputs.NAMES) - {"lstm_classifier", "zero_head_vit"})
)
def test_the_structure_of_every_fixture_is_that_of_its_scan(name: str) -> None:
    net = getattr(models, name)()
    given = Batch(args=inputs.inputs(name, 6), size=6)

    same(structure(net, given), scan_all(net, [given]))


class Swish(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(z)


class Doubled(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return 2 * z


class Own(nn.Module):
    """Modules of the user's own, an activation among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.act, self.twice = Swish(), Doubled()

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.act(self.first(x)))
        return self.last(self.act(x))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.block, self.first(x), use_reentrant=False))


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    return net


CASES: dict[str, Callable[[], nn.Module]] = {
    "own activations": Own,
    "checkpointed": Checkpointed,
    "tied": _tied,
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        nn.ReLU(),
        nn.Linear(6, 2),
    ),
    "prelu": lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Linear(6, 2)),
    "frozen": lambda: nn.Sequential(
        nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6), nn.Linear(6, 2)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2)
    ),
    "half": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).half(),
    "data parallel": lambda: nn.DataParallel(
        nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_structure_of_special_models_is_that_of_their_scan(name: str) -> None:
    torch.manual_seed(0)
    net = CASES[name]()
    given = Batch(args=(noise(4, 6),), size=4)

    same(structure(net, given), scan_all(net, [given]))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_recurrent_layers_are_read_by_shape_too(mode: Any) -> None:
    net = models.lstm_classifier()
    found = structure(net, Batch(args=(noise(4, 12, 8),), size=4), mode=mode)

    assert found.unused == ()
    assert found.rows[-1].path == "head"
    assert sum(row.parameters for row in found.rows) == sum(
        p.numel() for p in net.parameters()
    )


def test_nothing_is_computed() -> None:
    """A terabyte of weights has a structure all the same."""
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Linear(1 << 10, 1 << 19), nn.ReLU(), nn.Linear(1 << 19, 1 << 19)
        )
        x = torch.empty(1 << 20, 1 << 10)
    found = structure(net, Batch(args=(x,), size=1 << 20))

    assert [row.path for row in found.rows] == ["0", "1", "2"]
    assert [row.depth for row in found.rows] == [1, 1, 0]
    assert found.rows[2].parameters == (1 << 38) + (1 << 19)


def test_the_order_of_everything_is_kept() -> None:
    net = models.functional_activations()
    found = structure(net, Batch(args=(noise(4, 32),), size=4))

    assert found.cut_nodes >= len(found.rows)
    assert [row.depth for row in found.rows if row.weighted] == list(range(7, -1, -1))


def test_control_flow_on_values_is_refused_with_the_reason() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) if x.sum() > 0 else x

    with pytest.raises(CannotRun) as caught:
        structure(Branching(), Batch(args=(noise(4, 6),), size=4))

    assert caught.value.message.startswith(
        "the model (Branching) depends on the values of its tensors, and a structure "
        "knows only their shapes: "
    )
    assert caught.value.hint == "scan the model: that runs it on data"


@pytest.mark.parametrize("size", [3, 6, 7])
def test_weights_as_long_as_the_batch_are_not_taken_for_data(size: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(7, 6), nn.Linear(6, 3)
            self.register_buffer("scale", torch.ones(6, 1))
            self.gate = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            scale = torch.sigmoid(self.scale).mean()
            x = torch.tanh(self.first(x)) * scale
            return self.last(x) * torch.sigmoid(self.gate)

    net, given = Net(), Batch(args=(noise(size, 7),), size=size)
    found, flow = structure(net, given), scan_all(net, [given])

    same(found, flow)
    assert [r.path for r in found.rows if r.activation] == ["tanh#1"]
    assert [r.path for r in found.rows if r.weighted] == ["first", "last"]


def test_an_output_without_gradient_is_refused() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).detach()

    with pytest.raises(CannotRun) as caught:
        structure(Detached(), Batch(args=(noise(4, 6),), size=4))

    assert caught.value.message == (
        "no gradient can flow: the output does not depend on the weights"
    )
