"""The laws of auto-rotation (AR), in float64 to 1e-12."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.nn.oracles import denominator
from vgaudit.nn import AutoRotation, Denominator, Limit, auto_rotate, bake, fold_

EXACT = 1e-12
KINDS = ("moments", "interval", "xq-min", "xq-max")

CONVS = [
    pytest.param(
        lambda g=groups, p=padding, s=stride, d=dilation: nn.Conv2d(
            8, 8, 3, stride=s, padding=2, dilation=d, groups=g, padding_mode=p
        ),
        id=f"{padding}-groups{groups}-stride{stride}-dilation{dilation}",
    )
    for padding in ("zeros", "reflect", "replicate", "circular")
    for groups in (1, 4, 8)
    for stride, dilation in ((1, 1), (2, 1), (1, 2))
]
OTHERS = [
    pytest.param(lambda: nn.Linear(8, 5), id="linear"),
    pytest.param(lambda: nn.Linear(8, 5, bias=False), id="linear-no-bias"),
    pytest.param(lambda: nn.Conv1d(8, 6, 3, groups=2), id="conv1d"),
    pytest.param(lambda: nn.Conv2d(8, 4, 3, padding="same"), id="conv2d-same"),
    pytest.param(lambda: nn.Conv2d(8, 4, 3), id="conv2d-valid"),
    pytest.param(lambda: nn.Conv3d(8, 3, 2), id="conv3d"),
    pytest.param(lambda: nn.ConvTranspose1d(8, 4, 4, 2, 1), id="transpose1d"),
    pytest.param(
        lambda: nn.ConvTranspose2d(8, 4, 3, 2, output_padding=1, groups=4),
        id="transpose2d-grouped",
    ),
    pytest.param(lambda: nn.ConvTranspose2d(8, 4, 3, 3, dilation=2), id="dilated"),
    pytest.param(lambda: nn.ConvTranspose3d(8, 2, 2, 2), id="transpose3d"),
]


def batch_for(layer: nn.Module) -> Tensor:
    """Returns inputs in [0, 1] that fit the layer."""
    dims = layer.weight.dim() - 2  # type: ignore[union-attr,operator]
    return torch.rand(3, 8, *[7] * max(dims, 0))


def close(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference, relative where numbers are large."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1)).item()


@pytest.mark.parametrize("make", [*OTHERS, *CONVS])
def test_output_is_rho_times_the_plain_output(make) -> None:
    layer = make()
    x = batch_for(layer)
    plain = layer(x)
    rotated = auto_rotate(layer, limit=3.0, inputs=(0, 1))
    rho = rotated.rho()
    shape = (-1,) if x.dim() == 2 else (-1, *[1] * (x.dim() - 2))

    assert close(rotated(x), rho.view(shape) * plain) < EXACT
    assert bool((rotated(x).sign() == plain.sign()).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [*OTHERS, *CONVS])
def test_folding_keeps_the_function_and_makes_rho_one(make, kind) -> None:
    layer = make()
    x = batch_for(layer)
    rotated = auto_rotate(layer, limit=3.0, denominator=kind, inputs=(0, 1))
    before = rotated(x)

    assert close(fold_(rotated)(x), before) < EXACT
    assert (rotated.rho() - 1).abs().max().item() < EXACT


@pytest.mark.parametrize("make", [*OTHERS, *CONVS])
def test_baking_is_exact_to_the_last_bit(make) -> None:
    layer = make()
    x, keys, kind = batch_for(layer), list(layer.state_dict()), type(layer)
    rotated = auto_rotate(layer, limit=3.0, inputs=(0, 1))
    before = rotated(x)
    plain = bake(rotated)

    assert plain is layer
    assert type(plain) is kind
    assert list(plain.state_dict()) == keys
    assert torch.equal(plain(x), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [*OTHERS, *CONVS])
def test_preserving_is_exact_to_the_last_bit(make, kind) -> None:
    layer = make()
    x = batch_for(layer)
    plain = layer(x)
    how = Denominator(kind)
    rotated = auto_rotate(layer, limit=Limit("preserve"), denominator=how)

    assert bool((rotated.rho() == 1).all())
    assert torch.equal(rotated(x), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [*OTHERS, CONVS[0], CONVS[4], CONVS[10]])
def test_denominator_equals_that_of_a_black_box(make, kind) -> None:
    layer = make()
    dims = layer.weight.dim() - 2
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    # Leave out output elements that a border reaches; keep every phase.
    padded = any(layer.padding) if dims > 0 and layer.padding != "same" else dims > 0
    margin = 4 if transposed else 2 * padded
    shape = (8, *[9 if padded else 5] * max(dims, 0))
    limits = {"moments": 2.0}.get(kind, 1.0)
    # A bound holds for zeros that pad, too: give it a range with 0 in it.
    low = 0.0 if kind == "interval" else 0.2
    wanted = denominator(layer, shape, (low, 1.0), kind, limits, margin=margin)
    how = Denominator(kind, floor=0)
    rotated = auto_rotate(layer, denominator=how, inputs=(low, 1.0))

    assert close(rotated.denominator(), wanted) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", OTHERS)
def test_scaling_a_unit_changes_nothing(make, kind) -> None:
    rotated = auto_rotate(make(), denominator=kind, inputs=(0, 1))
    x = batch_for(rotated)
    before, d = rotated(x), rotated.denominator()
    factor = torch.rand(d.shape) * 10 + 0.1
    with torch.no_grad():
        rotated.weight.copy_(rotated.multiply(factor))  # type: ignore[operator]
        if rotated.bias is not None:
            rotated.bias.mul_(factor)  # type: ignore[operator,union-attr]

    assert close(rotated.denominator(), factor * d) < EXACT
    assert close(rotated(x), before) < EXACT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", OTHERS)
def test_euler_identity_of_the_gradient(make, kind) -> None:
    """⟨∂L/∂w_j, w_j⟩ + ∂L/∂b_j·b_j = 0 per unit: the loss does not see the scale."""
    rotated = auto_rotate(make(), denominator=kind, inputs=(0, 1))
    rotated(batch_for(rotated)).sin().sum().backward()
    along = copy.deepcopy(rotated)
    along.weight.data = rotated.weight.grad * rotated.weight.data  # type: ignore[operator,union-attr]
    radial = along.rows().sum((1, 2))  # type: ignore[operator]
    size = along.rows().abs().sum((1, 2))  # type: ignore[operator]
    if rotated.bias is not None:
        radial = radial + rotated.bias.grad * rotated.bias  # type: ignore[operator,union-attr]

    assert (radial.abs() / size).max().item() < EXACT
    assert size.min().item() > 1e-6


@pytest.mark.parametrize("q", ["xq-min", "xq-max", 0.7])
def test_at_the_fixed_point_z_has_the_size_of_l(q) -> None:
    low, high = 0.25, 1.0
    point = {"xq-min": 2 * low - high, "xq-max": 2 * high - low}.get(q, q)
    how = Denominator("xq", q=q, floor=0) if q == 0.7 else Denominator(q, floor=0)
    limit = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    linear = auto_rotate(
        nn.Linear(9, 5), limit=limit, denominator=how, inputs=(low, high)
    )

    z = linear(torch.full((1, 9), float(point)))[0].abs()
    assert close(z, limit) < EXACT


def test_gradient_reaches_l_only_where_it_is_trained() -> None:
    for kind, trained in (("auto_indep", True), ("frozen_indep", False)):
        layer = auto_rotate(nn.Linear(4, 3), limit=Limit(4.0, kind))
        layer(torch.rand(2, 4)).sum().backward()

        assert ("ar_limit" in dict(layer.named_parameters())) is trained
        assert (layer.ar_limit.grad is not None) is trained


def test_a_unit_without_weights_is_left_and_gets_gradients() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias[1] = 0
    rotated = auto_rotate(layer, denominator="xq-max", inputs=(0, 1))
    rotated(torch.rand(2, 4)).sum().backward()

    assert 1.0 == rotated.rho()[1].item()
    assert bool(rotated.weight.grad.isfinite().all())  # type: ignore[union-attr,operator]
    assert bool((rotated.weight.grad[1] != 0).any())  # type: ignore[index]


def test_partial_rotation_turns_only_what_can_exceed_the_cap() -> None:
    plain = nn.Linear(20, 30)
    with torch.no_grad():
        plain.weight[:15].mul_(20)
    rotated = auto_rotate(copy.deepcopy(plain), limit=Limit("preserve", cap=3.0))
    d = rotated.denominator()

    assert bool((d < 3).any() and (d > 3).any())
    assert bool((rotated.rho()[d <= 3] == 1).all())
    assert close((rotated.rho() * d)[d > 3], torch.tensor(3.0)) < EXACT


def test_repr_says_how_it_is_rotated() -> None:
    layer: AutoRotation = auto_rotate(nn.Linear(2, 3))

    assert "AutoRotatedLinear(in_features=2, out_features=3, bias=True, " in repr(layer)
    assert "D=moments, L=auto_indep" in repr(layer)
