"""Outputs and inputs in containers of every kind."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from fixtures import batches as inputs
from fixtures import models
from tests.probe.scans import (
    layer,
    noise,
    parameters,
    scan,
    scan_all,
)
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun


@dataclasses.dataclass
class Record:
    logits: Tensor
    rest: Any = None


Named = collections.namedtuple("Named", "logits rest")


class Outputs(nn.Module):
    """Two layers beside each other, returned in a container."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wrap = wrap
        self.stem, self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.tanh(self.stem(x))
        return self.wrap(self.a(x), self.b(x))


def model_output(a: Tensor, b: Tensor) -> Any:
    output = pytest.importorskip("transformers.utils").ModelOutput

    @dataclasses.dataclass
    class Found(output):  # type: ignore[misc, valid-type]
        logits: Tensor | None = None
        rest: Tensor | None = None

    return Found(logits=a, rest=b)


CONTAINERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda a, b: (a, b),
    "list in tuple": lambda a, b: ([a], (None, "x", b)),
    "dict": lambda a, b: {"logits": a, "rest": {"deep": [b, 3]}},
    "namedtuple": Named,
    "dataclass": Record,
    "dataclass of dict": lambda a, b: Record(a, {"x": b}),
    "ordered dict": lambda a, b: collections.OrderedDict(logits=a, rest=b),
    "model output": model_output,
    "packed sequence": lambda a, b: (PackedSequence(a, torch.tensor([4])), b),
    "twice": lambda a, b: (a, b, a, {"again": b}),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_outputs_are_found_in_any_container(kind: str) -> None:
    flow = scan(Outputs(CONTAINERS[kind]), noise(4, 6))
    plain = scan(Outputs(CONTAINERS["tuple"]), noise(4, 6))

    assert [row.path for row in flow.layers] == ["stem", "tanh#1", "a", "b"]
    for one, two in zip(flow.layers, plain.layers, strict=True):
        assert one.attenuation == two.attenuation
    # Each head has its own share of the whole: their squares sum to one.
    shares = [10 ** (2 * layer(flow, path).attenuation.value) for path in "ab"]
    assert sum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "output", "path"),
    [
        ("tuple", "0", "a"),
        ("tuple", "1", "b"),
        ("tuple", "-1", "b"),
        ("dict", "logits", "a"),
        ("dict", "rest", "b"),
        ("dict", "1", "b"),
        ("namedtuple", "rest", "b"),
        ("dataclass", "logits", "a"),
        ("dataclass", "1", "b"),
        ("model output", "rest", "b"),
        ("model output", "0", "a"),
        ("list in tuple", "1", "b"),
    ],
)
def test_one_output_can_be_chosen(kind: str, output: str, path: str) -> None:
    flow = scan(Outputs(CONTAINERS[kind]), noise(4, 6), output=output)
    other = "b" if path == "a" else "a"

    assert layer(flow, path).attenuation.value == pytest.approx(0.0, abs=1e-6)
    assert layer(flow, other).attenuation is None
    assert not parameters(flow)[f"{other}.weight"].connected
    assert parameters(flow)[f"{other}.weight"].called


@pytest.mark.parametrize(
    ("kind", "output", "type_"),
    [("tuple", "2", "tuple"), ("tuple", "logits", "tuple"), ("dict", "x", "dict"),
     ("dataclass", "7", "Record"), ("namedtuple", "x", "Named")],
)  # fmt: skip
def test_an_output_that_is_not_there_is_refused(
    kind: str, output: str, type_: str
) -> None:
    with pytest.raises(CannotRun) as caught:
        scan(Outputs(CONTAINERS[kind]), noise(4, 6), output=output)

    assert caught.value.message == (
        f"the model's output has no '{output}'; it is a {type_}"
    )
    assert caught.value.hint == (
        "choose an index or key that the output has, or leave --output out"
    )


def test_packed_sequences_go_in_and_out() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(6, 4), nn.Linear(4, 2)

        def forward(self, x: PackedSequence) -> PackedSequence:
            found, _ = self.rnn(x)
            return found._replace(data=self.head(found.data))

    x = pack_padded_sequence(
        noise(3, 5, 6), torch.tensor([5, 2, 3]), batch_first=True, enforce_sorted=False
    )
    flow = scan_all(Packed(), [Batch(args=(x,), size=3)])

    assert all(p.connected for p in flow.parameters)
    assert layer(flow, "head").attenuation.value == pytest.approx(0.0, abs=1e-6)


def test_inputs_in_containers_and_by_name_are_data() -> None:
    given = Batch(args=inputs.inputs("dict_input", 6), size=6)
    flow = scan_all(models.dict_input(), [given])
    assert [row.path for row in flow.layers] == ["image", "token", "tanh#1", "head"]
    assert [row.depth for row in flow.layers] == [1, 1, 1, 0]

    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, *, record: Record, scale: float = 1.0) -> Tensor:
            return self.last(torch.relu(self.first(record.logits)) * scale)

    given = Batch(kwargs={"record": Record(noise(4, 6)), "scale": 2.0}, size=4)
    found = scan_all(ByName(), [given])
    assert [row.path for row in found.layers] == ["first", "relu#1", "last"]
