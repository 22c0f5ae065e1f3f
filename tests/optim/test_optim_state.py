"""State: saved, loaded, copied; half precision, NaN, AMP, schedulers, closures."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from tests.optim.networks import backward, batches, mlp, set_gradient, values_of
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.optim import SDAGD, CenteredAdam, warmup_linear_decay

BUILD = {
    "sdagd": lambda m: SDAGD(
        m.named_parameters(), lr=0.1, kappa=5.0, every=3, adapt=True
    ),
    "adam": lambda m: CenteredAdam(m.named_parameters(), lr=0.01),
}


def run(
    model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int
) -> None:
    dtype = next(model.parameters()).dtype
    for index, (x, y) in enumerate(batches(last, 5, 3, dtype)):
        if index < first:
            continue
        if isinstance(optimizer, SDAGD):
            optimizer.observe(model(x), "cross-entropy")
        backward(model, x, y)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", BUILD)
def test_a_run_resumed_from_its_state_is_bit_equal(
    kind: str, dtype: torch.dtype
) -> None:
    straight = mlp(5, 6, 3, dtype=dtype)
    run(straight, BUILD[kind](straight), 0, 11)

    model = mlp(5, 6, 3, dtype=dtype)
    optimizer = BUILD[kind](model)
    run(model, optimizer, 0, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = mlp(5, 6, 3, dtype=dtype)
    resumed.load_state_dict(saved["model"])
    fresh = BUILD[kind](resumed)
    fresh.load_state_dict(saved["optimizer"])
    run(resumed, fresh, 4, 11)

    for one, other in zip(values_of(straight), values_of(resumed), strict=True):
        assert torch.equal(one, other)


def test_loading_copies() -> None:
    model = mlp(5, 6, 3)
    optimizer = BUILD["sdagd"](model)
    run(model, optimizer, 0, 4)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved["state"][0]["momentum"])
    other = BUILD["sdagd"](model)
    for _ in range(2):
        other.load_state_dict(saved)

    run(model, other, 4, 6)

    assert torch.equal(kept, saved["state"][0]["momentum"])


@pytest.mark.parametrize("kind", BUILD)
def test_the_state_of_another_optimizer_is_refused(kind: str) -> None:
    model = mlp(5, 6, 3)
    saved = torch.optim.SGD(model.parameters(), lr=0.1).state_dict()

    with pytest.raises(BadConfig, match=r"group 0 of the state_dict lacks .*centring"):
        BUILD[kind](model).load_state_dict(saved)


@pytest.mark.parametrize("kind", BUILD)
def test_survives_pickle_and_deepcopy(kind: str) -> None:
    model = mlp(5, 6, 3)
    optimizer = BUILD[kind](model)
    run(model, optimizer, 0, 4)
    twins = [
        copy.deepcopy((model, optimizer)),
        pickle.loads(pickle.dumps((model, optimizer))),  # noqa: S301
    ]

    run(model, optimizer, 4, 8)
    for twin, twins_optimizer in twins:
        run(twin, twins_optimizer, 4, 8)

        for one, other in zip(values_of(model), values_of(twin), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_averages_in_float32(dtype: torch.dtype) -> None:
    model = nn.Linear(300, 300, dtype=dtype)
    # 90,000 gradients of 1000: their norm, 3e5, is beyond float16.
    before = values_of(model)[0].float()
    set_gradient(model.weight, torch.full((300, 300), 1000.0))
    set_gradient(model.bias, torch.full((300,), 1e-6))
    optimizer = SDAGD(model.named_parameters(), lr=0.3, centring=False)

    optimizer.step()

    moved = (values_of(model)[0].float() - before).norm() / before.norm()
    assert 0.3 == pytest.approx(float(moved), rel=0.02)
    assert torch.float32 == optimizer.state[model.weight]["momentum"].dtype


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.filterwarnings("ignore:kappa > 0")
def test_a_gradient_with_nan_stops_its_layer_alone_and_spoils_nothing(
    kind: str,
) -> None:
    model, twin = mlp(5, 6, 3), mlp(5, 6, 3)
    optimizer, other = BUILD[kind](model), BUILD[kind](twin)
    run(model, optimizer, 0, 4)
    run(twin, other, 0, 4)
    stopped = values_of(model)
    state = copy.deepcopy(optimizer.state_dict()["state"])

    x, y = next(batches(1, 5, 3))
    for net, stepper in ((model, optimizer), (twin, other)):
        backward(net, x, y)
        if net is model:
            net[0].weight.grad[0, 0] = float("nan")
        stepper.step()

    after, healthy = values_of(model), values_of(twin)
    assert torch.equal(stopped[0], after[0])
    assert torch.equal(stopped[1], after[1])
    assert torch.equal(healthy[2], after[2])
    assert torch.equal(healthy[3], after[3])
    for name, value in state[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, optimizer.state_dict()["state"][0][name])
    if isinstance(optimizer, SDAGD):
        assert [1, 0] == [phase.refused for phase in optimizer.phases()]


def test_weights_with_infinity_stand_still() -> None:
    model = mlp(5, 6, 3)
    with torch.no_grad():
        model[0].bias[0] = float("inf")
    for parameter in model.parameters():
        set_gradient(parameter, torch.randn_like(parameter))
    before = values_of(model)
    optimizer = SDAGD(model.named_parameters())

    optimizer.step()

    assert torch.equal(before[0], values_of(model)[0])
    assert not torch.equal(before[2], values_of(model)[2])


def test_a_zero_gradient_is_skipped() -> None:
    model = mlp(5, 6, 3)
    optimizer = SDAGD(model.named_parameters(), weight_decay=1.0)
    for parameter in model.parameters():
        set_gradient(parameter, torch.zeros_like(parameter))
    before = values_of(model)

    optimizer.step()

    assert all(map(torch.equal, before, values_of(model)))
    assert () == optimizer.phases()


def test_gradients_below_float32_are_zero_and_not_infinity() -> None:
    model = nn.Linear(3, 3)
    set_gradient(model.weight, torch.full((3, 3), 1e-44))
    set_gradient(model.bias, torch.full((3,), 1e-44))
    before = values_of(model)
    optimizer = SDAGD(model.named_parameters())

    optimizer.step()

    assert all(map(torch.equal, before, values_of(model)))


def test_grad_scaler_gives_the_unscaled_run() -> None:
    ends = []
    for scaled in (False, True):
        model = mlp(5, 6, 3, dtype=torch.float32)
        optimizer = SDAGD(model.named_parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)
        for index, (x, y) in enumerate(batches(6, 5, 3, torch.float32)):
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if index == 3 and scaled:
                # Overflow: the scaler leaves the step out.
                for parameter in model.parameters():
                    parameter.grad.fill_(float("inf"))
            if index != 3 or scaled:
                scaler.step(optimizer)
                scaler.update()
        ends.append(values_of(model))

    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_sparse_gradients_are_refused() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    model(torch.tensor([1, 2])).sum().backward()

    with pytest.raises(CannotRun) as error:
        SDAGD(model.named_parameters()).step()

    assert "the gradient of weight is sparse" == error.value.message
    assert "sparse=False" in error.value.hint


def test_frozen_and_unused_parameters_stay() -> None:
    model = mlp(5, 6, 3)
    model[0].requires_grad_(False)
    before = values_of(model)
    optimizer = SDAGD(model.named_parameters())

    run(model, optimizer, 0, 2)

    assert torch.equal(before[0], values_of(model)[0])
    assert not torch.equal(before[2], values_of(model)[2])


def test_a_closure_observes_goes_backward_and_returns_the_loss() -> None:
    model = mlp(5, 6, 3)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)
    x, y = next(batches(1, 5, 3))
    before = nn.functional.cross_entropy(model(x), y).detach()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        output = model(x)
        optimizer.observe(output, "cross-entropy")
        loss = nn.functional.cross_entropy(output, y)
        loss.backward()
        return loss

    assert torch.equal(before, optimizer.step(closure))
    assert "curvature" in optimizer.state[model[0].weight]


def test_a_group_added_later_trains() -> None:
    model = mlp(5, 6, 3)
    optimizer = SDAGD(model[0].named_parameters(prefix="0"))
    optimizer.add_param_group({"params": model[2].named_parameters(prefix="2")})
    before = values_of(model)

    run(model, optimizer, 0, 2)

    assert not any(map(torch.equal, before, values_of(model)))
    with pytest.raises(BadConfig, match="momentum is 2"):
        optimizer.add_param_group(
            {"params": nn.Linear(2, 2).named_parameters(), "momentum": 2.0}
        )


def test_warmup_then_linear_decay() -> None:
    optimizer = SDAGD(nn.Linear(2, 2).named_parameters(), lr=2.0)
    scheduler = warmup_linear_decay(optimizer, 10, warmup=0.2)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert [
        1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0
    ] == pytest.approx(rates)  # fmt: skip


def test_the_schedule_resumes() -> None:
    optimizer = SDAGD(nn.Linear(2, 2).named_parameters(), lr=2.0)
    scheduler = warmup_linear_decay(optimizer, 10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    other = warmup_linear_decay(SDAGD(nn.Linear(2, 2).named_parameters(), lr=2.0), 99)

    other.load_state_dict(scheduler.state_dict())
    optimizer.step()
    scheduler.step()
    other.optimizer.step()
    other.step()

    assert scheduler.get_last_lr() == other.get_last_lr()


@pytest.mark.parametrize(
    ("steps", "warmup"), [(0, 0.1), (10, 1.0), (10, -0.1), (10, float("nan"))]
)
def test_a_schedule_without_steps_is_refused(steps: int, warmup: float) -> None:
    optimizer = SDAGD(nn.Linear(2, 2).named_parameters())

    with pytest.raises(BadConfig):
        warmup_linear_decay(optimizer, steps, warmup=warmup)


def test_torchs_schedulers_move_the_radius() -> None:
    model = mlp(5, 6, 3)
    optimizer = SDAGD(model.named_parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    lengths = []
    for x, y in batches(4, 5, 3):
        backward(model, x, y)
        norm = float(model[2].weight.detach().norm())
        optimizer.step()
        lengths.append(optimizer.phases()[1].radius / norm)
        scheduler.step()

    assert lengths[0] == pytest.approx(10 * lengths[3], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", BUILD)
def test_cuda_equals_cpu(kind: str) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        model = mlp(5, 6, 3).to(device)
        optimizer = (
            SDAGD(model.named_parameters(), adapt=True)
            if kind == "sdagd"
            else BUILD[kind](model)
        )
        for x, y in batches(12, 5, 3):
            backward(model, x.to(device), y.to(device))
            optimizer.step()
        ends.append([value.cpu() for value in values_of(model)])

    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other)
