"""Activations in functions that a method calls, and in modules made on the fly."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.nn import PiecewiseLinear
from vgaudit.treatments import Treated, load, save, treat
from vgaudit.treatments.steps import replay, steps_of

PRESERVE = ConvertOptions(to="adact", preserve=True)
GAIN = 0.5


def squashed(z: Tensor, *, gain: float = 1.0) -> Tensor:
    return torch.tanh(gain * z)


def twice(z: Tensor) -> Tensor:
    return F.silu(torch.sigmoid(z) - GAIN)


def logged(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Tensor:
        return 3.0 * function(*args, **kwargs)

    return around


@logged
def decorated(z: Tensor) -> Tensor:
    return torch.tanh(z)


def takes_the_module(module: nn.Module, z: Tensor) -> Tensor:
    return torch.tanh(z * module.scale)


def makes_a_module(z: Tensor) -> Tensor:
    return nn.Tanh()(z)


TABLE: dict[str, Callable[..., Tensor]] = {"squashed": squashed}


class Two(nn.Module):
    scale = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)


class Plain(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(squashed(self.a(x), gain=0.5))


class Twice(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(twice(self.a(x)))


class Around(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(decorated(self.a(x)))


class Chosen(Two):
    """As transformers choose their attention: by a table, when they run."""

    name = "squashed"

    def forward(self, x: Tensor) -> Tensor:
        function = TABLE.get(self.name, torch.relu)
        return self.b(function(self.a(x)))


class Handed(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(takes_the_module(self, self.a(x)))


class Anew(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(nn.Sigmoid()(self.a(x)))


class AnewInside(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(makes_a_module(self.a(x)))


class Child(nn.Module):
    """Called by a method of its own, never as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = 0.5

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x + self.gain * y)


class Parent(Two):
    def __init__(self) -> None:
        super().__init__()
        self.child = Child()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.child.added(self.a(x), x))


class Kept(Two):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [nn.Tanh(), nn.Tanh()]

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        for act in self.acts:
            z = act(z)
        return self.b(z)


CASES = [
    (Plain, 1),
    (Twice, 2),
    (Around, 1),
    (Chosen, 1),
    (Handed, 1),
    (Anew, 1),
    (AnewInside, 1),
    (Parent, 1),
    (Kept, 1),
]


def converted(model: nn.Module) -> tuple[Treated, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 6)
    return treat(model, [Batch(args=(x,), size=16)], PRESERVE), x


def lines_of(model: nn.Module) -> list[PiecewiseLinear]:
    return [m for m in model.modules() if isinstance(m, PiecewiseLinear)]


@pytest.mark.parametrize(("make", "count"), CASES)
def test_kept_trained_copied_pickled_and_reloaded(
    make: type[nn.Module], count: int, tmp_path: Path
) -> None:
    model = make()
    treated, x = converted(model)
    made = treated.model
    assert treated.preserved
    assert treated.refusals == ()
    assert len(lines_of(made)) == count
    made(x).square().sum().backward()
    assert all(line.values.grad is not None for line in lines_of(made))
    with torch.no_grad():
        for line in lines_of(made):
            line.values.add_(1.0)
    wanted = made(x)
    assert not torch.equal(wanted, model(x))
    assert torch.equal(copy.deepcopy(made)(x), wanted)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301
    assert torch.equal(again(x), wanted)
    save(made, tmp_path / "out.safetensors")
    read = load(tmp_path / "out.safetensors", arch=lambda: make())
    assert torch.equal(read(x), wanted)
    assert torch.equal(checkpoint(made, x, use_reentrant=False), wanted)


def test_the_function_itself_stays() -> None:
    treated, x = converted(Plain())
    with torch.no_grad():
        lines_of(treated.model)[0].values.add_(1.0)
    z = treated.model.a(x)
    assert torch.equal(squashed(z, gain=0.5), torch.tanh(0.5 * z))
    by_hand = treated.model.b(torch.tanh(0.5 * z) + 1.0)
    assert torch.allclose(treated.model(x), by_hand, atol=1e-6)


def test_another_function_in_its_place_is_called() -> None:
    """What was chosen when the model ran is compared when it runs again."""
    treated, x = converted(Chosen())
    model: Any = treated.model
    with torch.no_grad():
        lines_of(model)[0].values.add_(1.0)
    model.name = "another"
    assert torch.equal(model(x), model.b(torch.relu(model.a(x))))


@pytest.mark.parametrize("make", [Twice, Chosen, AnewInside])
def test_it_compiles_in_one_graph(make: type[nn.Module]) -> None:
    treated, x = converted(make())
    compiled = torch.compile(treated.model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), treated.model(x))


def test_a_changed_function_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    treated, _ = converted(Plain())
    monkeypatch.setitem(globals(), "squashed", twice)
    with pytest.raises(CannotRewrite, match="squashed is not the one"):
        replay(Same(), steps_of(treated.model))
    monkeypatch.delitem(globals(), "squashed")
    with pytest.raises(CannotRewrite, match="no function squashed"):
        replay(Same(), steps_of(treated.model))


class Same(Two):
    forward = Plain.forward


def test_what_torch_adds_up_first_is_kept() -> None:
    """torch's own add_relu is a method that does more than call relu."""
    model = Residual()
    treated, x = converted(model)
    assert treated.preserved
    assert [edit.path for edit in treated.edits] == ["sum"]
    with torch.no_grad():
        lines_of(treated.model)[0].values.mul_(2.0)
    by_hand = model.b(2.0 * torch.relu(model.a(x) + x))
    assert torch.allclose(treated.model(x), by_hand, atol=1e-6)


class Residual(Two):
    def __init__(self) -> None:
        super().__init__()
        self.sum = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.sum.add_relu(self.a(x), x))


def outer(z: Tensor) -> Tensor:
    return squashed(z)


class Deep(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(outer(self.a(x)))


class Inner(Two):
    def forward(self, x: Tensor) -> Tensor:
        def local(z: Tensor) -> Tensor:
            return torch.tanh(z)

        return self.b(local(self.a(x)))


class Mixed(Two):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [nn.Tanh(), nn.ReLU()]

    forward = Kept.forward


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Deep, "squashed, which is no method"),
        (Inner, "local, which is no method"),
        (Mixed, "relu and tanh at one place"),
    ],
)
def test_what_cannot_be_reached_is_refused(make: type[nn.Module], reason: str) -> None:
    with pytest.raises(CannotRewrite, match="VG701") as caught:
        converted(make())
    assert reason in caught.value.message


class Swish(Two):
    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        return self.b(z * torch.sigmoid(1.702 * z))


def test_what_multiplies_its_own_input_is_no_gate() -> None:
    treated, _ = converted(Swish())
    assert [edit.kind for edit in treated.edits] == ["sigmoid"]


class Capped(Two):
    """Attention with capped logits."""

    def forward(self, x: Tensor) -> Tensor:
        q = F.relu(self.a(x))
        logits = 5.0 * torch.tanh(q @ q.T / math.sqrt(6) / 5.0)
        return self.b(torch.softmax(logits, -1) @ q)


def test_a_soft_cap_of_logits_is_left() -> None:
    treated, _ = converted(Capped())
    assert [edit.kind for edit in treated.edits] == ["relu"]
    (refusal,) = treated.refusals
    assert "soft cap" in refusal.reason
