"""Calls rewritten in the source of a method, against the method written by hand."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.nn import PiecewiseLinear
from vgaudit.treatments import Treated, treat

PRESERVE = ConvertOptions(to="adact", preserve=True)
SLOPE = 0.3


class Two(nn.Module):
    """Two layers around whatever activation a subclass writes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)


class Lines(Two):
    def forward(self, x: Tensor, *, scale: float = 2.0) -> Tensor:
        """A call over several lines, a keyword-only default."""
        z = F.leaky_relu(
            self.a(x),
            negative_slope=SLOPE,
        )
        return self.b(z) * scale


class Method(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu_())


class Keyword(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.gelu(input=self.a(x), approximate="tanh"))


class Inherited(Two):
    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x))


class Child(Inherited):
    def hidden(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().hidden(x))


class Mangled(Two):
    def __init__(self) -> None:
        super().__init__()
        self.__gain = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.sigmoid(self.__gain * 1.0 * self.a(x)))


def closed_over(gain: float) -> nn.Module:
    class Closure(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.silu(self.a(x)) * gain)

    return Closure()


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Inherited(), Lines()
        self.head = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.one(x) + self.two(x)))


class Attribute(Two):
    def __init__(self) -> None:
        super().__init__()
        self.act = F.elu

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


def converted(model: nn.Module) -> tuple[Treated, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 6)
    return treat(model, [Batch(args=(x,), size=16)], PRESERVE), x


@pytest.mark.parametrize(
    "make",
    [
        Lines,
        Method,
        Keyword,
        Inherited,
        Child,
        Mangled,
        Nested,
        Attribute,
        functools.partial(closed_over, 3.0),
    ],
)
def test_the_function_is_kept_and_the_activation_learns(make: object) -> None:
    assert callable(make)
    model = make()
    treated, x = converted(model)
    lines = [m for m in treated.model.modules() if isinstance(m, PiecewiseLinear)]
    assert lines
    assert torch.equal(treated.model(x), model(x))
    treated.model(x).square().sum().backward()
    assert all(line.values.grad is not None for line in lines)
    assert isinstance(treated.model, type(model))
    assert not any(isinstance(m, PiecewiseLinear) for m in model.modules())


def test_what_super_calls_is_refused_alone() -> None:
    treated, _ = converted(Child())
    assert [edit.kind for edit in treated.edits] == ["sigmoid"]
    (refusal,) = treated.refusals
    assert "called by super()" in refusal.reason


def test_a_copy_has_activations_of_its_own() -> None:
    treated, x = converted(Inherited())
    twin = copy.deepcopy(treated.model)
    before = treated.model(x).detach()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(treated.model(x), before)
    assert not torch.equal(twin(x), before)


def test_a_converted_model_pickles() -> None:
    treated, x = converted(Inherited())
    again = pickle.loads(pickle.dumps(treated.model))  # noqa: S301
    assert torch.equal(again(x), treated.model(x))


def test_calls_with_and_without_the_base() -> None:
    """The new method calls what one would have written by hand."""
    treated, x = converted(Inherited())
    model = treated.model
    with torch.no_grad():
        model.adact_0.line.values.normal_()
    z = model.a(x)
    assert torch.equal(model.hidden(x), torch.tanh(z) + model.adact_0.line(z))


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def twice(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return 2 * function(self, *args, **kwargs)

    return twice


class Callable_:
    """A decorator that is an object: what it wraps is not in a closure."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else functools.partial(self.function, owner)


class Decorated(Two):
    """Two wrappers that keep what they wrap in their closure."""

    @torch.autocast("cpu", enabled=False)
    @doubled
    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return self.b(torch.tanh(scale * self.a(x)))


class Hidden(Two):
    @Callable_
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class Discarded(Two):
    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        torch.relu_(z)
        return self.b(z)


def test_decorators_stay_around_a_rewritten_method() -> None:
    treated, x = converted(Decorated())
    model = treated.model
    with torch.no_grad():
        model.adact_0.line.values.normal_()
    z = 2.0 * model.a(x)
    by_hand = 2 * model.b(torch.tanh(z) + model.adact_0.line(z))
    assert torch.equal(model(x), by_hand)
    assert type(model).forward.__wrapped__ is not Decorated.forward.__wrapped__


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Hidden, "none is a method of"),
        (Discarded, "result is not used"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(
    make: type[nn.Module], reason: str
) -> None:
    with pytest.raises(CannotRewrite, match=r"VG701 nothing was converted") as caught:
        converted(make())
    assert reason in caught.value.message


def test_the_fused_fast_path_of_an_encoder_layer_sees_the_new_activation() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(8, 2))
    x = torch.randn(4, 5, 8)
    treated = treat(model, [Batch(args=(x,), size=4)], PRESERVE)
    with torch.no_grad():
        for module in treated.model.modules():
            if isinstance(module, PiecewiseLinear):
                module.values.add_(1.0)
        treated.model.eval()
        assert not torch.allclose(treated.model(x), model.eval()(x))
