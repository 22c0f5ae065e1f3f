"""auto_rotate changes a class in place: identity, keys, copies, training, refusals."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import (
    AutoRotatedConv2d,
    AutoRotatedLinear,
    Denominator,
    Inputs,
    Limit,
    auto_rotate,
    bake,
    fold_,
)
from vgaudit.nn.convert import rotated_class


class Doubled(nn.Linear):
    """A user's layer with a forward of its own, which reads the weight twice."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.weight.sum()


class Renamed(nn.Conv2d):
    """A user's layer with the forward of the plain class."""


def test_parameters_stay_the_same_objects_under_the_same_names() -> None:
    layer = nn.Linear(3, 4)
    weight, bias, keys = layer.weight, layer.bias, list(layer.state_dict())
    rotated = auto_rotate(layer)

    assert rotated is layer
    assert isinstance(rotated, nn.Linear)
    assert type(rotated) is AutoRotatedLinear
    assert rotated.weight is weight
    assert rotated.bias is bias
    added = ["ar_limit", "ar_center", "ar_spread"]
    assert sorted([*keys, *added]) == sorted(rotated.state_dict())


def test_state_dict_goes_to_a_layer_rotated_alike() -> None:
    one = auto_rotate(nn.Linear(3, 4), limit=2.5, inputs=Inputs.moments(0.3, 2.0))
    other = auto_rotate(nn.Linear(3, 4), inputs=Inputs.moments(0.0, 1.0))
    other.load_state_dict(one.state_dict())
    x = torch.randn(5, 3)

    assert torch.equal(other(x), one(x))


def test_constructor_takes_the_arguments_of_the_plain_layer() -> None:
    layer = AutoRotatedConv2d(3, 4, 3, padding=1, limit=2.0, inputs=(0, 1))
    twin = auto_rotate(nn.Conv2d(3, 4, 3, padding=1), limit=2.0, inputs=(0, 1))
    twin.load_state_dict(layer.state_dict())
    x = torch.rand(2, 3, 5, 5)

    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),  # noqa: S301
        lambda layer: _through_torch_save(layer),
    ],
    ids=["deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(4, 3), lambda: Doubled(4, 3)], ids=["plain", "subclass"]
)
def test_copies_compute_the_same_and_are_independent(copied, make) -> None:
    layer = auto_rotate(make())
    x = torch.randn(2, 4)
    twin = copied(layer)
    before = layer(x)

    assert type(twin) is type(layer)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        twin.weight.mul_(-1)
    assert torch.equal(layer(x), before)
    assert not torch.equal(twin(x), before)


def _through_torch_save(layer: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


def test_subclass_keeps_its_own_forward() -> None:
    layer = Doubled(4, 3)
    x = torch.randn(2, 4)
    rotated = auto_rotate(layer)
    rho = rotated.rho()
    weight, bias = rho.unsqueeze(1) * layer.weight, rho * layer.bias

    wanted = x @ weight.T + bias + weight.sum()
    assert torch.allclose(rotated(x), wanted, rtol=1e-12)
    assert isinstance(rotated, Doubled)
    assert type(bake(rotated)) is Doubled


def test_class_of_a_subclass_is_made_once() -> None:
    assert rotated_class(Renamed) is rotated_class(Renamed)
    assert rotated_class(Renamed) is not AutoRotatedConv2d


def test_checkpointing_and_functional_call_see_the_rotation() -> None:
    from torch.func import functional_call
    from torch.utils.checkpoint import checkpoint

    layer = auto_rotate(nn.Linear(4, 3))
    x = torch.randn(2, 4, requires_grad=True)
    doubled = {"ar_limit": layer.ar_limit.detach() + 1.0}

    assert torch.equal(checkpoint(layer, x, use_reentrant=False), layer(x))
    assert not torch.equal(functional_call(layer, doubled, (x,)), layer(x))


def test_denominator_is_float32_under_autocast_and_in_half() -> None:
    layer = auto_rotate(nn.Linear(64, 8).float(), inputs=(0, 1))
    wanted = layer.denominator()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, output = layer.denominator(), layer(torch.rand(2, 64).float())

    assert torch.float32 == found.dtype
    assert torch.equal(found, wanted)
    assert torch.bfloat16 == output.dtype
    half = copy.deepcopy(layer).bfloat16()
    assert torch.float32 == half.denominator().dtype
    assert torch.bfloat16 == half(torch.rand(2, 64).bfloat16()).dtype


def test_folded_network_trains() -> None:
    model = nn.Sequential(
        fold_(auto_rotate(nn.Linear(6, 16))),
        nn.Sigmoid(),
        fold_(auto_rotate(nn.Linear(16, 16), inputs=(0, 1))),
        nn.Sigmoid(),
        nn.Linear(16, 1),
    )
    x = torch.randn(64, 6)
    y = (x[:, :1] > 0).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimizer.step()

    assert loss.item() < 0.1
    assert (model[0].rho() - 1).abs().max().item() > 1e-3


def test_shared_layer_keeps_one_l_and_one_d() -> None:
    layer = auto_rotate(nn.Linear(3, 3))
    model = nn.Sequential(layer, nn.Tanh(), layer)

    assert ["0.ar_limit"] == [
        name for name, _ in model.named_parameters() if name.endswith("ar_limit")
    ]
    assert torch.equal(model.state_dict()["2.ar_limit"], layer.ar_limit)


class Unknown(nn.Module):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.BatchNorm1d(3), "auto-rotation of BatchNorm1d"),
        (lambda: Unknown(), "auto-rotation of Unknown"),
        (lambda: nn.LazyLinear(3), "LazyLinear is not initialised"),
        (
            lambda: parametrizations.weight_norm(nn.Linear(2, 3)),
            "the weight of ParametrizedLinear is computed, not a parameter",
        ),
        (
            lambda: nn.Linear(2, 3, dtype=torch.complex64),
            r"Linear has weights of torch.complex64",
        ),
        (
            lambda: auto_rotate(nn.Linear(2, 3)),
            "AutoRotatedLinear is auto-rotated already",
        ),
    ],
)
def test_refusals_leave_the_layer_alone(make, message) -> None:
    layer = make()
    kind, keys = type(layer), list(layer._parameters) + list(layer._buffers)
    with pytest.raises(CannotRewrite, match=message):
        auto_rotate(layer)

    assert type(layer) is kind
    assert keys == list(layer._parameters) + list(layer._buffers)


class Clashing(nn.Linear):
    def rows(self) -> int:
        return 3


def test_members_that_rotation_would_hide_are_refused() -> None:
    marked = nn.Linear(2, 3)
    marked.limit = 5  # type: ignore[assignment]
    for layer, name in ((Clashing(2, 3), "rows"), (marked, "limit")):
        with pytest.raises(CannotRewrite, match=f"has a member '{name}'"):
            auto_rotate(layer)

    assert 3 == Clashing(2, 3).rows()


def test_arguments_that_do_not_fit_leave_the_layer_alone() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(BadConfig, match="inputs for 5 channels, the layer has 2"):
        auto_rotate(layer, inputs=Inputs.moments(torch.zeros(5), 1.0))

    assert type(layer) is nn.Linear
    assert ["weight", "bias"] == list(layer.state_dict())
    assert "rotation" not in layer.__dict__


def test_reference_border_is_no_factor_of_the_weights() -> None:
    how = Denominator("xq-max", border="reference")
    layer = auto_rotate(nn.Conv2d(2, 3, 3, padding=1), denominator=how)
    for change in (fold_, bake):
        with pytest.raises(CannotRewrite, match="border='reference' cannot be folded"):
            change(layer)
    with pytest.raises(BadConfig, match="no single D for L to preserve"):
        auto_rotate(
            nn.Conv2d(2, 3, 3, padding=1), denominator=how, limit=Limit("preserve")
        )
    with pytest.raises(CannotRewrite, match="of a transposed convolution"):
        auto_rotate(nn.ConvTranspose1d(2, 3, 3), denominator=how)

    # Without padding of zeros nothing varies, and it folds as any other.
    inner = auto_rotate(nn.Conv2d(2, 3, 3), denominator=how)
    x = torch.rand(1, 2, 5, 5)
    before = inner(x)
    assert torch.allclose(fold_(inner)(x), before, rtol=1e-12)


def test_a_forward_on_the_object_would_pass_the_rotation_by() -> None:
    layer = nn.Linear(2, 3)
    layer.forward = lambda x: nn.Linear.forward(layer, x)  # type: ignore[method-assign]
    with pytest.raises(CannotRewrite, match="is replaced on the object"):
        auto_rotate(layer)
