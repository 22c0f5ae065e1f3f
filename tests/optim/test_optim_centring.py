"""Centring: the law it is made for, and where it must not divide noise by noise."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from tests.optim.networks import backward, mlp, values_of
from vgaudit.optim import SDAGD, CenteredAdam
from vgaudit.optim.centring import Centre, Standing, standing

SHIFT = 3.0


def shifted(model: nn.Sequential) -> nn.Sequential:
    """Returns the same function of inputs that are all ``SHIFT`` larger."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].bias -= SHIFT * twin[0].weight.sum(1)
    return twin


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    y = torch.arange(len(x)) % 3
    for _ in range(25):
        backward(model, x, y)
        optimizer.step()
    return model(x).detach()


def gap(make: object) -> float:
    """Returns how far training drifts apart when all inputs are shifted."""
    torch.manual_seed(4)
    x = torch.randn(12, 5, dtype=torch.float64)
    model = mlp(5, 6, 3)
    twin = shifted(model)
    torch.testing.assert_close(model(x), twin(x + SHIFT))
    one = trained(model, make(model), x)
    other = trained(twin, make(twin), x + SHIFT)
    return float((one - other).abs().max())


def test_centred_training_does_not_see_a_shift_of_the_inputs() -> None:
    def sdagd(model: nn.Module) -> SDAGD:
        # An absolute radius: the norm of the bias, which the shift changes, is out.
        return SDAGD(model.named_parameters(), lr=0.02, radius="absolute")

    def adam(model: nn.Module) -> CenteredAdam:
        return CenteredAdam(model.named_parameters(), lr=0.01)

    assert gap(sdagd) < 1e-9
    assert gap(adam) < 1e-6  # ε is not free of scale


def test_uncentred_training_does() -> None:
    def sdagd(model: nn.Module) -> SDAGD:
        return SDAGD(
            model.named_parameters(), lr=0.02, radius="absolute", centring=False
        )

    def adam(model: nn.Module) -> CenteredAdam:
        return CenteredAdam(model.named_parameters(), lr=0.01, centring=False)

    assert gap(sdagd) > 0.01
    assert gap(adam) > 0.01


@pytest.mark.parametrize("build", [SDAGD, CenteredAdam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_that_sees_one_input_trains_its_bias_alone(
    build: type[SDAGD] | type[CenteredAdam], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(50, 4, dtype=dtype)
    # Every sample is the same: g_W = g_b x̄ᵀ, and only rounding is left of it.
    x = torch.rand(50, dtype=dtype).expand(32, -1)
    weight, bias = values_of(model)
    optimizer = build(model.named_parameters(), lr=0.01)

    for _ in range(3):
        backward(model, x, torch.arange(32) % 3)
        optimizer.step()

    assert torch.equal(weight, model.weight.detach())
    assert not torch.equal(bias, model.bias.detach())


@pytest.mark.parametrize("build", [SDAGD, CenteredAdam])
def test_fifty_sigmoid_layers_without_signal_stay_finite(
    build: type[SDAGD] | type[CenteredAdam],
) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before in (20, *[20] * 49):
        layers += [nn.Linear(before, 20), nn.Sigmoid()]
    model = nn.Sequential(*layers)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    optimizer = build(model.named_parameters(), lr=0.01)

    for _ in range(10):
        backward(model, torch.randn(32, 20), torch.arange(32) % 20)
        optimizer.step()

    assert all(bool(value.isfinite().all()) for value in values_of(model))


def test_a_convolution_is_centred_like_the_linear_map_of_its_patches() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 2, dtype=torch.float64)
    flat = nn.Linear(8, 4, dtype=torch.float64)
    with torch.no_grad():
        flat.weight.copy_(conv.weight.flatten(1))
        flat.bias.copy_(conv.bias)
    optimizers = [SDAGD(module.named_parameters(), lr=0.1) for module in (conv, flat)]
    for _ in range(4):
        x = torch.rand(3, 2, 5, 5, dtype=torch.float64)
        patches = nn.functional.unfold(x, 2).movedim(1, -1)
        for module, inputs, optimizer in zip(
            (conv, flat), (x, patches), optimizers, strict=True
        ):
            module.zero_grad()
            module(inputs).square().sum().backward()
            optimizer.step()

    torch.testing.assert_close(conv.weight.flatten(1), flat.weight)
    torch.testing.assert_close(conv.bias, flat.bias)


def test_channels_last_keeps_its_layout_and_its_values() -> None:
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        optimizer = SDAGD(conv.named_parameters())
        for seed in range(3):
            torch.manual_seed(seed)
            conv.zero_grad()
            x = torch.rand(2, 3, 6, 6).to(memory_format=layout)
            conv(x).square().sum().backward()
            optimizer.step()
        assert conv.weight.is_contiguous(memory_format=layout)
        assert optimizer.state[conv.weight]["momentum"].is_contiguous(
            memory_format=layout
        )
        ends.append(values_of(conv))

    for plain, other in zip(*ends, strict=True):
        torch.testing.assert_close(plain, other.contiguous(), rtol=1e-4, atol=1e-6)


def test_without_centring_it_is_adamw() -> None:
    ends = []
    for centred in (True, False):
        model = mlp(5, 6, 3)
        optimizer: torch.optim.Optimizer = (
            CenteredAdam(
                model.named_parameters(), lr=0.01, weight_decay=0.1, centring=False
            )
            if centred
            else torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        )
        torch.manual_seed(3)
        trained(model, optimizer, torch.randn(12, 5, dtype=torch.float64))
        ends.append(values_of(model))

    for ours, torchs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, torchs)


SWALLOWED = {
    "linear": (lambda: nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32)), (16,), 32),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten()),
        (2, 6, 6),
        128,
    ),
    "instances": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.InstanceNorm2d(8), nn.Flatten()),
        (2, 6, 6),
        128,
    ),
}


@pytest.mark.parametrize("optimizer", [SDAGD, CenteredAdam])
@pytest.mark.parametrize("name", SWALLOWED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bias_that_normalisation_swallows_is_not_thrown_about(
    name, optimizer, dtype
) -> None:
    make, shape, width = SWALLOWED[name]
    torch.manual_seed(0)
    model = nn.Sequential(make(), nn.ReLU(), nn.Linear(width, 4))
    x = torch.randn(256, *shape)
    y = (x.flatten(1)[:, 0] > 0).long() + 2 * (x.flatten(1)[:, 1] > 0).long()
    steps = optimizer(model.named_parameters(), lr=0.05)
    for batch, labels in list(zip(x.split(32), y.split(32), strict=True)) * 5:
        steps.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = nn.functional.cross_entropy(model(batch), labels)
        loss.backward()
        steps.step()
    model.eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(x), y)

    # No gradient moves that bias: what is left is a walk of small steps.
    assert float(model[0][0].bias.detach().abs().max()) < 3.0
    # Chance is log 4 = 1.39; before, this was 10 to 10⁴.
    assert float(loss) < 1.3


def fit(value: Tensor, share: float, mean: Tensor) -> Centre:
    return Centre(0, 1, mean, value, share, square=1.0, bias_norm=1.0)


def standings(fits: Iterable[Tensor]) -> list[Standing]:
    """Returns what is said after each fit, all of the same weight."""
    kept: dict[str, float] = {}
    found, mean, square = [], torch.zeros(()), 0.0
    for value in fits:
        square = 0.9 * square + 0.1
        share = 0.1 / square
        mean = mean + share * (value - mean)
        now = standing(
            kept,
            fit(value, share, mean),
            mean_norm=float(mean.norm()),
            fit_norm=float(value.norm()),
        )
        kept = {"mean_square": now.mean_square, "means_seen": now.seen}
        found.append(now)
    return found


@pytest.mark.parametrize(("size", "first"), [(1.0, 0), (100.0, 9)])
def test_a_mean_that_stays_is_believed_a_large_one_after_ten_steps(size, first) -> None:
    found = standings([torch.full((6,), size)] * 30)
    assert [now.agrees for now in found] == [False] * first + [True] * (30 - first)
    assert found[-1].mean_square == pytest.approx(6 * size**2)


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_fits_that_change_sign_at_random_are_no_mean(size) -> None:
    generator = torch.Generator().manual_seed(3)
    found = standings(size * torch.randn(200, 50, generator=generator))
    late = found[50:]
    assert not any(now.agrees for now in late)
    # EMA(‖ā‖²) of 50 independent numbers of that size.
    assert late[-1].mean_square == pytest.approx(50 * size**2, rel=0.3)
