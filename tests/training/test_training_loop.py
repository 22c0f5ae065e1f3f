"""The loop against a plain one, and what it does with bad batches and full memory."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.courses import (
    Cliff,
    net,
    options,
    plain_loop,
    record,
    same,
    samples,
    split_rows,
    trained,
    warmup_linear,
)
from vgaudit.api import describe
from vgaudit.data import resolve_loss
from vgaudit.data.batch import Batch
from vgaudit.data.seeding import generator_for
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.nn import PiecewiseLinear
from vgaudit.optim import SDAGD, warmup_linear_decay
from vgaudit.reports.retraining import render
from vgaudit.retraining import Retraining
from vgaudit.training.campaign import Surroundings
from vgaudit.training.metrics import score
from vgaudit.training.retrain import opened
from vgaudit.training.task import train


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("adam", lambda params: torch.optim.Adam(params, lr=1e-3)),
        ("adamw", lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1)),
        ("sgd", lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)),
    ],
)
def test_a_run_is_the_plain_loop_bit_for_bit(method, make, dropout) -> None:
    decay = 0.1 if method == "adamw" else 0.0
    done = trained(net(dropout=dropout), options(method, weight_decay=decay))
    epochs = plain_loop(net(dropout=dropout), make, factor=warmup_linear)

    best = done.retraining.run.best
    assert best > 0
    assert same(done.model, epochs[best - 1])


def test_schedules_are_the_plain_loop_too() -> None:
    def cosine(step: int, total: int) -> float:
        warm = round(0.05 * total)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))

    def drops(step: int, total: int) -> float:
        return 0.1 ** ((step >= total / 2) + (step >= 3 * total / 4))

    for name, factor in (
        ("cosine", cosine),
        ("step", drops),
        ("constant", lambda *_: 1.0),
    ):
        done = trained(net(), options("sgd", schedule=name))
        epochs = plain_loop(
            net(),
            lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
            factor=factor,
        )
        best = done.retraining.run.best
        for key, value in epochs[best - 1].items():
            torch.testing.assert_close(done.model.state_dict()[key], value)


def test_sdagd_is_the_optimizer_in_the_loop_of_its_manual() -> None:
    asked = options("sdagd", settings={"kappa": "100", "every": "3"}, lr=0.05)
    done = trained(net(), asked)
    model = net()
    x, y = samples()
    rows, _ = split_rows(len(x), 0.1, 0)
    x, y = x[rows], y[rows]
    optimizer = SDAGD(model.named_parameters(), lr=0.05, kappa=100, every=3)
    scheduler = warmup_linear_decay(optimizer, 3 * 7)
    epochs = []
    for epoch in (1, 2, 3):
        order = torch.randperm(len(x), generator=generator_for(0, "order", epoch))
        for chosen in order.split(16):
            optimizer.zero_grad()
            output = model(x[chosen])
            optimizer.observe(output, "cross-entropy")
            F.cross_entropy(output, y[chosen]).backward()
            optimizer.step()
            scheduler.step()
        epochs.append(copy.deepcopy(model.state_dict()))

    best = done.retraining.run.best
    assert same(done.model, epochs[best - 1])
    figures = done.retraining.run.epochs[1].figures
    assert 0.0 < figures["step over radius, median"] <= 1.0 + 1e-6
    assert "curvature over damping, median" in figures


def test_the_model_given_and_the_random_state_stay() -> None:
    model = net()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    trained(model, options("adam", controls=("sgd",)))

    assert same(model, before)
    assert torch.equal(state, torch.get_rng_state())


def test_the_kept_weights_are_those_of_the_best_epoch() -> None:
    done = trained(net(), options("sgd", lr=30.0, epochs=6, schedule="constant"))
    run = done.retraining.run
    x, y = samples()
    _, held = split_rows(len(x), 0.1, 0)
    found = (done.model.eval()(x[held]).argmax(1) == y[held]).double().mean().item()

    ranks = [(e.metric, -e.valid_loss) for e in run.epochs]
    assert run.best == ranks.index(max(ranks))
    assert found == pytest.approx(run.kept.metric)


def test_a_training_that_only_harms_gives_the_model_back() -> None:
    model = trained(net(), options("adam", lr=0.05, epochs=20)).model
    done = trained(model, options("sgd", lr=1e4, epochs=2, schedule="constant"))

    assert done.retraining.run.best == 0
    assert same(done.model, model.state_dict())


def test_patience_ends_a_run_that_gets_no_better() -> None:
    asked = options("sgd", lr=1e-12, epochs=50, patience=3)
    frozen = record(net(), replace(asked, settings={}))
    run = frozen.run

    assert run.epochs[-1].number - run.best == 3
    assert run.stopped.startswith(f"after epoch {run.epochs[-1].number} of 50")


def test_without_validation_the_last_epoch_is_kept() -> None:
    run = record(net(), options("adam", valid_split=0.0)).run

    assert run.best == 3
    assert all(e.valid_loss is None and e.metric is None for e in run.epochs)


def test_clipping_bounds_the_gradient_of_each_step() -> None:
    asked = options("sgd", lr=1.0, momentum=0.0, clip=1e-3, schedule="constant")
    done = trained(net(), replace(asked, epochs=1, valid_split=0.0))
    moved = [
        float((a - b).detach().square().sum())
        for a, b in zip(done.model.parameters(), net().parameters(), strict=True)
    ]

    steps = math.ceil(120 / 16)
    assert 0 < sum(moved) ** 0.5 <= steps * 1e-3 * 1.001


def test_weight_decay_leaves_the_values_of_activations_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 4), PiecewiseLinear(4), nn.Linear(4, 3))
    frozen = options("adamw", lr=1e-9, weight_decay=1e8, epochs=1, valid_split=0.0)
    done = trained(model, replace(frozen, schedule="constant"))
    values, before = done.model[1].values, model[1].values
    norms = [float(m[0].weight.detach().norm()) for m in (done.model, model)]
    shrunk = norms[0] / norms[1]

    torch.testing.assert_close(values, before, atol=1e-6, rtol=0)
    assert shrunk == pytest.approx((1 - 0.1) ** 8, rel=1e-3)


def with_nan(every: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = samples()
    x = x.clone()
    x[::every, 0] = float("nan")
    return x, y


def test_batches_with_nan_are_skipped_and_counted() -> None:
    x, y = with_nan(60)
    run = record(net(norm=True), options("adam", valid_split=0.0), data=(x, y)).run

    assert all(1 <= e.skipped <= 2 for e in run.epochs[1:])  # two rows are NaN
    taken = [e.steps for e in run.epochs]
    assert taken[-1] == 3 * 8 - sum(e.skipped for e in run.epochs)
    assert all(math.isfinite(e.train_loss) for e in run.epochs[1:])


def test_steps_that_were_left_out_are_told_with_their_reason() -> None:
    run = record(net(), options("adam", valid_split=0.0), data=with_nan(60)).run
    skipped = sum(e.skipped for e in run.epochs)
    said = [note for note in run.notes if "left out" in note]

    assert said == [
        f"{skipped} of {3 * 8} steps were left out; the last: 1 element of its inputs "
        "is NaN or infinite"
    ]


def judged_on(valid: tuple[torch.Tensor, torch.Tensor]) -> Retraining:
    asked = options("adam", controls=("sgd",))
    task = opened(net(), describe(net()), samples(), valid=valid, options=asked)
    return train(replace(task, loss="cross-entropy"), Surroundings()).retraining


def test_validation_samples_with_nan_are_left_out_alone() -> None:
    x, y = samples(100, seed=1)
    broken = x.clone()
    broken[7, 2] = float("nan")
    broken[50] = float("inf")
    good = [row for row in range(100) if row not in (7, 50)]
    done, expected = judged_on((broken, y)), judged_on((x[good], y[good]))

    for one, other in zip(done.run.epochs, expected.run.epochs, strict=True):
        assert one.valid_loss == pytest.approx(other.valid_loss, rel=1e-5)
        assert one.metric == other.metric
    told = "2 of 100 validation samples hold NaN or infinity"
    assert any(note.startswith(told) for note in done.run.notes)
    assert done.run.judged == expected.run.judged == 98
    # Two independent binomials of 98 samples each.
    ours, theirs = done.run.kept.metric, done.controls[0].kept.metric
    half = 1.96 * math.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / 98)
    assert done.against[0].uncertainty == pytest.approx(half)
    assert "on 98 samples)" in render(done, None, form="text")


def test_validation_on_nothing_but_nan_is_refused() -> None:
    x, y = samples(50, seed=1)
    with pytest.raises(CannotRun, match="no validation sample is usable: all 50 hold"):
        judged_on((x * float("nan"), y))


def test_a_loss_that_is_nan_leaves_no_trace() -> None:
    done = trained(Cliff(), options("adam", valid_split=0.0))
    run = done.retraining.run

    assert sum(e.skipped for e in run.epochs) > 0
    for tensor in done.model.state_dict().values():
        assert bool(torch.isfinite(tensor).all())
    counted = done.model.inner[1].num_batches_tracked.item()
    assert counted == run.epochs[-1].steps


def test_nothing_but_nan_ends_the_training() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nan = float("nan") if self.training else 1.0
            return self.inner(x) * nan

    with pytest.raises(CannotRun, match=r"5 steps in a row.*the loss is nan"):
        trained(Broken(), options("adam", most_skipped=5))


class Hungry(nn.Module):
    """Runs out of memory above a number of samples, after so many steps.

    Scans put the counter back, as every attribute.
    """

    def __init__(self, most: int, patience: int = 0) -> None:
        super().__init__()
        self.inner, self.most, self.patience = net(), most, patience

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            self.patience -= 1
            if self.patience < 0 and len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.inner(x)


def test_full_memory_splits_the_batch_and_changes_no_step() -> None:
    full = trained(Hungry(5), options("adam"))
    split = trained(Hungry(1000), options("adam", accumulate=4))

    run = full.retraining.run
    notes = " ".join(run.notes)
    assert "out of memory: batches of 16 are computed in 4 parts" in notes
    assert same(full.model, split.model.state_dict())
    whole = trained(Hungry(1000), options("adam"))
    for a, b in zip(full.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_full_memory_with_one_sample_is_an_error() -> None:
    with pytest.raises(CannotRun, match="out of memory with one sample"):
        trained(Hungry(0, patience=60), options("adam", epochs=20))


def test_a_control_is_the_method_alone() -> None:
    both = record(net(), options("sdagd", controls=("adam:lr=0.003", "readout")))
    alone = record(net(), options("adam", lr=0.003))
    control, readout = both.controls

    assert control.name == "adam:lr=0.003"
    assert [e.valid_loss for e in control.epochs] == [
        e.valid_loss for e in alone.run.epochs
    ]
    assert readout.epochs[0].valid_loss == both.run.epochs[0].valid_loss
    assert [a.control for a in both.against] == ["adam:lr=0.003", "readout"]


def test_a_readout_moves_the_last_layer_alone() -> None:
    done = trained(net(), options("readout"))  # as the control trains it

    first, last = net()[0], net()[-1]
    assert torch.equal(done.model[0].weight, first.weight)
    assert not torch.equal(done.model[-1].weight, last.weight)


def test_adact_converts_first_and_its_control_does_not() -> None:
    done = trained(net(), options("adact", lr=0.01, controls=("adam:lr=0.001",)))
    alone = record(net(), options("adam"))

    assert any(isinstance(m, PiecewiseLinear) for m in done.model.modules())
    assert any("had no trainable activation: 2" in n for n in done.retraining.notes)
    (control,) = done.retraining.controls
    assert [e.valid_loss for e in control.epochs] == [
        e.valid_loss for e in alone.run.epochs
    ]


def test_validation_scores_are_those_of_the_whole_split() -> None:
    x, y = samples()
    done = trained(net(dropout=0.5), options("adam", valid_split=0.5))
    _, held = split_rows(len(x), 0.5, 0)
    model = done.model.eval()
    with torch.no_grad():
        loss = F.cross_entropy(model(x[held]), y[held]).item()

    assert done.retraining.run.kept.valid_loss == pytest.approx(loss, rel=1e-6)
    assert done.retraining.split.valid == len(held) == 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"controls": ("adman",)}, "no control is called 'adman'"),
        ({"controls": ("adam:lr=x",)}, "lr is 'x'"),
        ({"controls": ("adam:lr=nan",)}, "control adam:lr=nan: lr is 'nan'"),
        ({"controls": ("sgd:lr=-1",)}, "control sgd:lr=-1: lr is '-1'"),
        ({"controls": ("adam:lr=inf",)}, "lr is 'inf'"),
        ({"controls": ("adam:lr=0",)}, "lr is '0'"),
        ({"controls": ("adam:beta1=x",)}, "setting beta1 of adam is 'x'"),
        ({"controls": ("readout:beta2=1",)}, "setting beta2 of readout is 1"),
        ({"controls": ("centred-adam:eps=1",)}, "centred-adam has no setting 'eps'"),
        ({"settings": {"beta1": "1.5"}}, "setting beta1 of adam is 1.5"),
        ({"settings": {"eps": "-1"}}, "setting eps of adam is '-1'"),
        ({"settings": {"beta3": "1"}}, "adam has no setting 'beta3'"),
        ({"settings": {"beta1": "x"}}, "setting beta1 of adam is 'x'"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"lr": -1.0}, "--lr is -1.0"),
        ({"valid_split": 1.0}, "--valid-split is 1.0"),
        ({"valid_split": 0.0, "patience": 2}, "patience needs validation"),
        ({"amp": "fp16"}, "--amp fp16 is for CUDA"),
        ({"solver": "classic"}, "adam has no classic solver"),
        ({"schedule": "cos"}, "--schedule is cos"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message) -> None:
    with pytest.raises(BadConfig, match=message):
        trained(net(), options("adam", **wrong))


def test_labels_are_needed() -> None:
    x, _ = samples()
    with pytest.raises(CannotRun, match="has no labels"):
        trained(net(), options("adam"), data=x, loss=None)


def test_r_squared_is_that_of_numpy() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 6) + 100, torch.randn(50, 3) * 5 + 1e4
    model = net()
    parts = zip(x.split(13), y.split(13), strict=True)
    batches = [Batch(args=(a,), labels=b, size=len(a)) for a, b in parts]
    loss = resolve_loss("mse", True)
    assert loss is not None
    found = score(model, batches, loss, torch.device("cpu"))
    given, wanted = model(x).detach().double().numpy(), y.double().numpy()
    residual = ((wanted - given) ** 2).sum()
    expected = 1 - residual / ((wanted - wanted.mean(0)) ** 2).sum()

    assert found is not None
    assert found.metric == pytest.approx(float(expected), rel=1e-9)
    assert found.loss == pytest.approx(float(residual) / wanted.size, rel=1e-5)


class Own(nn.Module):
    """Raises an error of its own, or one of torch's, in training."""

    def __init__(self, *, own: bool) -> None:
        super().__init__()
        self.inner, self.own, self.steps = net(), own, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training and torch.is_grad_enabled()
        if self.steps > 9 and self.own:
            raise ValueError("my own bug in forward")
        return self.inner(x if self.steps <= 9 else x[:, :4])


def test_an_error_of_the_users_own_code_is_not_blamed_on_the_shapes() -> None:
    with pytest.raises(CannotRun, match="my own bug in forward") as caught:
        trained(Own(own=True), options("adam"))
    assert caught.value.hint.startswith("the model's own code raises this, in line ")
    assert "of test_training_loop.py: look there" in caught.value.hint

    with pytest.raises(CannotRun, match="mat1 and mat2") as caught:
        trained(Own(own=False), options("adam"))
    assert caught.value.hint.startswith("check the shape of the inputs")


def test_a_model_frozen_as_a_whole_is_told_in_words_of_a_training() -> None:
    with pytest.raises(CannotRun, match="0 of 6 parameters are trainable") as caught:
        trained(net().requires_grad_(False), options("adam"))
    assert "requires_grad_(True)" in caught.value.hint
    assert "--unfreeze" not in caught.value.hint
