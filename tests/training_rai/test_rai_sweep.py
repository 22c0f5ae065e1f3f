"""Mini-batch RAI against backpropagation, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.training_rai.nets import BCE, Residual, chain, images, moons
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.training.rai import Sweep, find_cuts
from vgaudit.training.rai.sweep import rms, unit


def _plain(model: nn.Sequential, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Weight gradients and gradients at the linear layers' outputs, by autograd."""
    values = []
    x = batch.args[0]
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            values.append(x)
    loss = BCE.function(x, batch.labels)
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    found = torch.autograd.grad(loss, [*weights, *values])
    return list(found[: len(weights)]), list(found[len(weights) : -1])


def _swept(model: nn.Module, batch: Batch, sweep: Sweep) -> list[Tensor]:
    model.zero_grad()
    with sweep.cutting():
        output = model(*batch.args)
    BCE.function(output, batch.labels).backward()
    return [p.grad for n, p in model.named_parameters() if n.endswith("weight")]


@pytest.fixture
def deep() -> tuple[nn.Sequential, Batch]:
    return chain(10, 12).double(), moons(30, 0, torch.float64)


def test_the_forward_pass_is_bit_identical() -> None:
    torch.manual_seed(0)
    model, batch = Residual().train(), images(16)
    sweep = Sweep(find_cuts(model, batch))
    state = {n: t.clone() for n, t in model.state_dict().items()}
    expected = model(*batch.args)
    model.load_state_dict(state)
    with sweep.cutting():
        found = model(*batch.args)

    assert torch.equal(expected, found)


def test_each_weight_has_the_gradient_of_backprop_times_a_known_factor(
    deep: tuple[nn.Sequential, Batch],
) -> None:
    model, batch = deep
    plain, arriving = _plain(model, batch)
    swept = _swept(model, batch, Sweep(find_cuts(model, batch), scale=0.5))

    # The gradient behind cut t has root mean square ½, so the factor is ½/RMS(g_t).
    for expected, found, g in zip(plain, swept, arriving, strict=False):
        factor = 0.5 / g.square().mean().sqrt()
        torch.testing.assert_close(found, factor * expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(swept[-1], plain[-1], rtol=0, atol=0)


def test_every_layer_has_the_direction_of_backprop(
    deep: tuple[nn.Sequential, Batch],
) -> None:
    model, batch = deep
    plain, _ = _plain(model, batch)
    swept = _swept(model, batch, Sweep(find_cuts(model, batch)))

    for a, b in zip(plain, swept, strict=True):
        cosine = (a * b).sum() / (a.norm() * b.norm())
        assert abs(1 - float(cosine)) < 1e-12


def test_without_a_scale_all_cuts_have_the_size_of_the_last(
    deep: tuple[nn.Sequential, Batch],
) -> None:
    model, batch = deep
    plain, arriving = _plain(model, batch)
    swept = _swept(model, batch, Sweep(find_cuts(model, batch)))
    last = arriving[-1].square().mean().sqrt()

    for expected, found, g in zip(plain, swept, arriving, strict=False):
        factor = last / g.square().mean().sqrt()
        torch.testing.assert_close(found, factor * expected, rtol=1e-9, atol=0)


def test_loss_times_c_is_gradient_times_c(deep: tuple[nn.Sequential, Batch]) -> None:
    model, batch = deep
    sweep = Sweep(find_cuts(model, batch))
    once = [g.clone() for g in _swept(model, batch, sweep)]
    model.zero_grad()
    with sweep.cutting():
        output = model(*batch.args)
    (1024 * BCE.function(output, batch.labels)).backward()

    for g, layer in zip(once, model[::2], strict=True):
        torch.testing.assert_close(layer.weight.grad, 1024 * g, rtol=1e-12, atol=0)


def test_per_sample_every_sample_has_the_same_size() -> None:
    values = torch.randn(4, 5, 6, dtype=torch.float64)
    scaled = unit(values, "sample")

    sizes = scaled.square().mean((1, 2))
    torch.testing.assert_close(sizes, torch.ones(4, dtype=torch.float64))
    assert torch.equal(scaled.sign(), values.sign())


def test_it_reaches_layers_where_backprop_is_exactly_zero() -> None:
    model, batch = chain(60, 16), moons(30, 0)
    plain, _ = _plain(model, batch)
    swept = _swept(model, batch, Sweep(find_cuts(model, batch)))

    assert 0 == int(plain[0].count_nonzero())
    assert all(int(g.count_nonzero()) for g in swept)


def test_squares_do_not_underflow_and_zero_stays_zero() -> None:
    tiny = torch.full((3, 3), 1e-30)

    assert float(rms(tiny)) == pytest.approx(1e-30, rel=1e-6)
    torch.testing.assert_close(unit(tiny), torch.ones(3, 3))
    assert torch.equal(torch.zeros(3), unit(torch.zeros(3)))


def test_in_place_activations_and_skips_are_no_obstacle() -> None:
    torch.manual_seed(0)
    model, batch = Residual().double(), images(16)
    batch = Batch(args=(batch.args[0].double(),), labels=batch.labels, size=16)
    sweep = Sweep(find_cuts(model, batch))
    model.zero_grad()
    BCE.function(model(*batch.args), batch.labels).backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with sweep.cutting():
        output = model(*batch.args)
    BCE.function(output, batch.labels).backward()

    # One factor for a whole block, not one for the branch and one for the skip.
    ratios = [
        float((p.grad / g)[g.abs() > 1e-12].median())
        for p, g in zip(model.parameters(), plain, strict=True)
        if (g.abs() > 1e-12).any()
    ]
    names = [
        name.split(".")[1] if name.startswith("blocks") else name.split(".")[0]
        for (name, _), g in zip(model.named_parameters(), plain, strict=True)
        if (g.abs() > 1e-12).any()
    ]
    for block in ("stem", "0", "1", "head"):
        own = [r for r, n in zip(ratios, names, strict=True) if n == block]
        assert own == pytest.approx([own[0]] * len(own), rel=1e-6)


def test_a_pass_without_gradients_is_left_alone() -> None:
    model, batch = chain(3, 8), moons(20, 0)
    sweep = Sweep(find_cuts(model, batch))
    with torch.no_grad(), sweep.cutting():
        found = model(*batch.args)

    assert torch.equal(model(*batch.args).detach(), found)


def test_two_passes_before_one_backward_do_not_mix() -> None:
    model, batch, other = (
        chain(4, 8).double(),
        *(moons(20, seed, torch.float64) for seed in (0, 1)),
    )
    sweep = Sweep(find_cuts(model, batch))
    alone = [g.clone() for g in _swept(model, batch, sweep)]
    beside = [g.clone() for g in _swept(model, other, sweep)]
    model.zero_grad()
    losses = []
    for part in (batch, other):
        with sweep.cutting():
            losses.append(BCE.function(model(*part.args), part.labels))
    sum(losses).backward()

    for a, b, layer in zip(alone, beside, model[::2], strict=True):
        torch.testing.assert_close(layer.weight.grad, a + b, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_must_be_positive(scale: float) -> None:
    model, batch = chain(2, 4), moons(20, 0)

    with pytest.raises(BadConfig, match="teaches nothing"):
        Sweep(find_cuts(model, batch), scale=scale)


def test_frozen_layers_at_the_input_are_left_as_they_are(
    deep: tuple[nn.Sequential, Batch],
) -> None:
    model, batch = deep
    whole = _swept(model, batch, Sweep(find_cuts(model, batch)))
    for layer in model[:3]:
        layer.requires_grad_(requires_grad=False)
    found = _swept(model, batch, Sweep(find_cuts(model, batch)))

    assert found[:2] == [None, None]
    for mine, other in zip(found[2:], whole[2:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)


def test_a_gradient_cut_off_behind_trained_layers_is_told() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.off = chain(3, 5), False

        def forward(self, x: Tensor) -> Tensor:
            x = self.net[:3](x)
            return self.net[3:](x.detach() if self.off else x)

    model, batch = Cut(), moons(20, 0)
    sweep = Sweep(find_cuts(model, batch))
    model.off = True
    model.net[4].requires_grad_(requires_grad=False)

    with (
        pytest.raises(CannotRun, match="no gradient passes the cut 3"),
        sweep.cutting(),
    ):
        model(*batch.args)
