"""Hutchinson's estimate against the whole Jacobian, autograd Hessians and BackPACK."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.optim.networks import mlp
from tests.optim.oracle import gauss_newton_diagonal
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.optim import SDAGD
from vgaudit.optim.curvature import draw, generator_for, pull_back

SAMPLES, CLASSES, DRAWS = 5, 3, 3000


def inputs() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(SAMPLES, 4, dtype=torch.float64)


LABELS = torch.tensor([0, 2, 1, 1, 0])
SOFT = torch.softmax(torch.arange(15.0, dtype=torch.float64).view(5, 3).sin(), 1)
WEIGHT = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)

LOSSES: dict[str, tuple[nn.Module, Tensor]] = {
    "ce": (nn.CrossEntropyLoss(), LABELS),
    "ce-sum": (nn.CrossEntropyLoss(reduction="sum"), LABELS),
    "ce-weighted": (nn.CrossEntropyLoss(weight=WEIGHT), LABELS),
    "ce-ignored": (nn.CrossEntropyLoss(ignore_index=1), LABELS),
    "ce-smoothed": (
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.3, ignore_index=0),
        LABELS,
    ),
    "ce-soft": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), SOFT),
    "mse": (nn.MSELoss(), SOFT),
    "mse-sum": (nn.MSELoss(reduction="sum"), SOFT),
    "bce": (nn.BCEWithLogitsLoss(), SOFT),
    "bce-weighted": (nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT * 2), SOFT),
}


def hessians(loss: nn.Module, targets: Tensor, output: Tensor) -> Tensor:
    """Returns the Hessian of the whole loss by each sample's outputs ``[N, C, C]``."""
    whole = torch.autograd.functional.hessian(lambda z: loss(z, targets), output)
    return torch.stack([whole[n, :, n, :] for n in range(len(output))])


def estimates(
    model: nn.Module, loss: object, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns mean and standard error of the estimate over many draws, flat."""
    output = model(inputs())
    params = list(model.parameters())
    return many_draws(output, params, loss, targets)


def many_draws(
    output: Tensor, params: list[Tensor], loss: object, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = [draw(output, loss, targets, generator) for _ in range(DRAWS)]
    found = torch.autograd.grad(
        output, params, torch.stack(drawn), is_grads_batched=True
    )
    squares = torch.cat([vectors.flatten(1) for vectors in found], dim=1) ** 2
    return squares.mean(0), squares.std(0) / DRAWS**0.5


def assert_unbiased(exact: Tensor, estimate: tuple[Tensor, Tensor]) -> None:
    mean, error = estimate
    assert float(((mean - exact).abs() / error.clamp_min(1e-12)).max()) < 4.0


@pytest.mark.parametrize("case", LOSSES)
def test_the_mean_of_many_draws_is_the_exact_diagonal(case: str) -> None:
    loss, targets = LOSSES[case]
    model = mlp(4, 3, CLASSES)
    output = model(inputs()).detach()
    exact = gauss_newton_diagonal(model, inputs(), hessians(loss, targets, output))

    estimate = estimates(model, loss, targets)

    assert_unbiased(torch.cat([exact[n].flatten() for n in exact]), estimate)


def test_nll_of_log_softmax_is_cross_entropy() -> None:
    model = nn.Sequential(*mlp(4, 3, CLASSES), nn.LogSoftmax(1))
    plain = mlp(4, 3, CLASSES)
    output = plain(inputs()).detach()
    ce = hessians(nn.CrossEntropyLoss(), LABELS, output)
    exact = gauss_newton_diagonal(plain, inputs(), ce)

    estimate = estimates(model, "nll", LABELS)

    assert_unbiased(torch.cat([exact[n].flatten() for n in exact]), estimate)


@pytest.mark.parametrize("case", ["ce", "mse"])
def test_the_mean_of_many_draws_is_backpacks(case: str) -> None:
    backpack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")
    loss, targets = LOSSES[case]
    model = mlp(4, 3, CLASSES)
    estimate = estimates(model, loss, targets)

    backpack.extend(model)
    result = backpack.extend(loss)(model(inputs()), targets)
    with backpack.backpack(extensions.DiagGGNExact()):
        result.backward()

    exact = torch.cat([p.diag_ggn_exact.flatten() for p in model.parameters()])
    assert_unbiased(exact, estimate)


def test_dense_prediction_counts_every_pixel() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, CLASSES, 1, dtype=torch.float64)
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (2, 2, 2))
    flat = nn.Linear(2, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        flat.weight.copy_(model.weight.view(CLASSES, 2))
        flat.bias.copy_(model.bias)
    pixels = x.movedim(1, -1).reshape(-1, 2)
    exact = gauss_newton_diagonal(
        flat,
        pixels,
        hessians(nn.CrossEntropyLoss(), labels.flatten(), flat(pixels).detach()),
    )

    estimate = many_draws(model(x), [model.weight, model.bias], "cross-entropy", labels)

    assert_unbiased(torch.cat([exact["weight"].flatten(), exact["bias"]]), estimate)


def test_a_function_draws_for_a_loss_of_ones_own() -> None:
    model = mlp(4, 3, CLASSES)
    identity = torch.eye(CLASSES, dtype=torch.float64).expand(SAMPLES, -1, -1)
    exact = gauss_newton_diagonal(model, inputs(), 7.0 * identity)

    def seven(output: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        return 7.0**0.5 * noise

    estimate = estimates(model, seven, None)

    assert_unbiased(torch.cat([exact[n].flatten() for n in exact]), estimate)


def observed(model: nn.Module, optimizer: SDAGD) -> list[Tensor]:
    return [
        optimizer.state[p]["curvature"] / optimizer.state[p]["curvature_weight"]
        for p in model.parameters()
    ]


def train(
    optimizer: SDAGD, model: nn.Module, steps: int, observe: Callable[[Tensor], object]
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(inputs())
        observe(output)
        nn.functional.cross_entropy(output, LABELS).backward()
        optimizer.step()


def test_the_first_observation_is_the_square_of_the_pull_back() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), lr=0.0, kappa=1.0, seed=5)
    output = model(inputs())
    cotangent = draw(
        output, "cross-entropy", None, generator_for(output.device, 5, 0, 0, 0)
    )
    expected = pull_back(output, cotangent, list(model.parameters()))

    train(optimizer, model, 1, lambda out: optimizer.observe(out, "cross-entropy"))

    for seen, vector in zip(observed(model, optimizer), expected, strict=True):
        torch.testing.assert_close(seen, vector**2)


def test_micro_batches_average_squares_and_not_vectors() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), lr=0.0, kappa=1.0)
    generators = [generator_for(torch.device("cpu"), 0, 0, 0, n) for n in range(2)]
    parts = inputs().split([2, 3])
    squares = []
    for part, generator in zip(parts, generators, strict=True):
        output = model(part)
        cotangent = draw(output, "cross-entropy", None, generator)
        found = pull_back(output, cotangent, list(model.parameters()))
        squares.append([vector**2 for vector in found])

    for part in parts:
        assert optimizer.observe(model(part), "cross-entropy")
    optimizer.step()

    for seen, one, two in zip(observed(model, optimizer), *squares, strict=True):
        torch.testing.assert_close(seen, (one + two) / 2)


def test_observes_every_so_many_steps() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0, every=3)
    seen: list[bool] = []

    train(
        optimizer,
        model,
        7,
        lambda out: seen.append(optimizer.observe(out, "cross-entropy")),
    )

    assert [True, False, False, True, False, False, True] == seen


def test_averages_observations_with_bias_correction() -> None:
    model = nn.Linear(4, CLASSES, dtype=torch.float64)
    optimizer = SDAGD(
        model.named_parameters(), lr=0.0, kappa=1.0, every=1, curvature_decay=0.5
    )
    sizes = iter([1.0, 3.0])

    def constant(output: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        return torch.full_like(output, next(sizes))

    train(optimizer, model, 2, lambda out: optimizer.observe(out, constant))

    row = inputs().sum(0) ** 2
    expected = (0.25 * 1.0 + 0.5 * 9.0) / 0.75 * row.expand(CLASSES, -1)
    torch.testing.assert_close(observed(model, optimizer)[0], expected)


def test_an_observation_with_infinity_is_dropped() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0, every=1)
    sizes = iter([1.0, float("inf")])

    def draws(output: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        return torch.full_like(output, next(sizes))

    train(optimizer, model, 1, lambda out: optimizer.observe(out, draws))
    before = [value.clone() for value in observed(model, optimizer)]
    train(optimizer, model, 1, lambda out: optimizer.observe(out, draws))

    for old, new in zip(before, observed(model, optimizer), strict=True):
        assert torch.equal(old, new)


def test_observing_leaves_gradients_and_random_state_alone() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)
    output = model(inputs())
    state = torch.get_rng_state()

    optimizer.observe(output, "cross-entropy")

    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_parameter_that_the_output_does_not_reach_has_no_curvature() -> None:
    model = nn.ModuleDict({"used": mlp(4, CLASSES), "idle": nn.Linear(2, 2)})
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    optimizer.observe(model["used"](inputs()), "cross-entropy")
    optimizer.step()

    assert 0.0 == float(optimizer.state[model["idle"].weight]["curvature"].sum())


def test_half_precision_output_is_drawn_in_float32() -> None:
    model = nn.Linear(4, CLASSES, dtype=torch.bfloat16)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    optimizer.observe(model(inputs().bfloat16()), "cross-entropy")
    optimizer.step()

    curvature = optimizer.state[model.weight]["curvature"]
    assert torch.float32 == curvature.dtype
    assert bool((curvature > 0).any())


def test_an_unknown_loss_counts_as_no_curvature_and_says_so() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    with pytest.warns(UserWarning, match="no curvature is known for L1Loss: h = 0"):
        assert not optimizer.observe(model(inputs()), nn.L1Loss())


def test_an_unknown_name_is_an_error() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    with pytest.raises(BadConfig) as error:
        optimizer.observe(model(inputs()), "crossentropy")

    assert "no curvature factor for the loss 'crossentropy'" == error.value.message
    assert error.value.hint.startswith("use one of cross-entropy, nll, mse, bce-with-")


@pytest.mark.parametrize("case", ["ce-weighted", "bce-weighted"])
def test_weights_need_targets(case: str) -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    with pytest.raises(BadConfig, match=r"changes? the curvature with the label"):
        optimizer.observe(model(inputs()), LOSSES[case][0])


def test_after_backward_it_is_too_late() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)
    output = model(inputs())
    nn.functional.cross_entropy(output, LABELS).backward()

    with pytest.raises(CannotRun) as error:
        optimizer.observe(output, "cross-entropy")

    assert "call observe(output, …) between the forward pass and backward()" == (
        error.value.hint
    )


def test_kappa_without_observations_warns_once() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    with pytest.warns(UserWarning, match="call observe") as caught:
        train(optimizer, model, 3, lambda _: None)

    assert 1 == len(caught)


def test_curvature_shortens_the_step_and_the_phase_tells() -> None:
    ratios = []
    for kappa in (0.1, 1e5):
        model = mlp(4, 3, CLASSES)
        optimizer = SDAGD(model.named_parameters(), kappa=kappa, every=1, momentum=0.0)
        train(optimizer, model, 3, partial(optimizer.observe, loss="cross-entropy"))
        ratios.append(optimizer.phases()[0])

    assert ratios[0].curvature_ratio is not None
    assert ratios[1].curvature_ratio > 100 * ratios[0].curvature_ratio
    assert ratios[1].step_ratio < 0.1 < 0.5 < ratios[0].step_ratio


class Donated(torch.autograd.Function):
    """Refuses to go backward twice, in the words of a compiled model."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        raise RuntimeError("compiled with non-empty donated buffers which requires …")


def test_a_compiled_model_that_donates_its_buffers_is_told_how_to_keep_them() -> None:
    model = mlp(4, 3, CLASSES)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)

    with pytest.raises(CannotRun) as error:
        optimizer.observe(Donated.apply(model(inputs())), "cross-entropy")

    assert "donated_buffer = False" in error.value.hint


@pytest.mark.slow
def test_curvature_of_a_compiled_model_is_that_of_the_model() -> None:
    seen = []
    for backend in (None, "aot_eager"):
        model = mlp(4, 3, CLASSES)
        optimizer = SDAGD(model.named_parameters(), lr=0.1, kappa=5.0, every=1)
        called = torch.compile(model, backend=backend) if backend else model
        for _ in range(3):
            optimizer.zero_grad()
            output = called(inputs())
            optimizer.observe(output, "cross-entropy")
            nn.functional.cross_entropy(output, LABELS).backward()
            optimizer.step()
        seen.append(observed(model, optimizer))

    for plain, compiled in zip(*seen, strict=True):
        torch.testing.assert_close(plain, compiled)
