"""Labels that the loss leaves out: parts, ranks and scores are those of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.distributed.networks import together
from tests.training.courses import options, split_rows
from vgaudit.api import describe
from vgaudit.data.batch import Batch
from vgaudit.data.losses import counted, resolve_loss
from vgaudit.data.seeding import generator_for
from vgaudit.distributed import joined
from vgaudit.ranks import Ranks
from vgaudit.retraining import RetrainOptions
from vgaudit.training.campaign import Surroundings
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.method import Scores
from vgaudit.training.retrain import opened
from vgaudit.training.standing import Standing
from vgaudit.training.task import Finished, train

WORDS, LENGTH, ROWS = 7, 5, 60
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 1.0, 0.7], dtype=torch.float64)
Loss = Callable[[Tensor, Tensor], Tensor]


class Tagger(nn.Module):
    """A class for each word, classes last, in float64; memory may run out."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden = nn.Embedding(WORDS, 6), nn.Linear(6, 8)
        self.head, self.most = nn.Linear(8, WORDS), most
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and len(ids) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        out: Tensor = self.head(self.hidden(self.embed(ids)).tanh())
        return out


class Second(Tagger):
    """The same with the classes in the second dimension, as torch's modules need."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).transpose(1, 2)


def masked(ignored: int = -100) -> tuple[Tensor, Tensor]:
    """Returns sentences, of whose labels two in three are left out.

    Every second sentence has none at all, and the others any number of them.
    """
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, WORDS, (ROWS, LENGTH), generator=generator)
    share = torch.rand(ROWS, 1, generator=generator)
    left_out = torch.rand(ROWS, LENGTH, generator=generator) < share
    left_out |= (torch.arange(ROWS) % 2 == 0)[:, None]
    return ids, torch.where(left_out, ignored, (ids * 3 + 1) % WORDS)


def asked(**given: Any) -> RetrainOptions:
    usual: dict[str, Any] = {"epochs": 2, "batch_size": 11, "lr": 0.3}
    return options("sgd", schedule="constant", warmup=0.0, **{**usual, **given})


def learned(
    given: RetrainOptions,
    model: nn.Module | None = None,
    loss: object = "cross-entropy",
    data: tuple[Tensor, Tensor] | None = None,
    crew: Crew = ALONE,
) -> Finished:
    model = Tagger() if model is None else model
    task = opened(model, describe(model), data or masked(), options=given)
    return train(replace(task, loss=loss), Surroundings(), crew)


def plain(loss: Loss, data: tuple[Tensor, Tensor], size: int = 11) -> nn.Module:
    """Trains on whole batches as anybody would write it; skips those without labels."""
    model, (x, y) = Second(), data
    rows, _ = split_rows(len(x), 0.1, 0)
    x, y = x[rows], y[rows]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for epoch in (1, 2):
        order = torch.randperm(len(x), generator=generator_for(0, "order", epoch))
        for chosen in order.split(size):
            found = loss(model(x[chosen]), y[chosen])
            if found.isfinite():
                optimizer.zero_grad()
                found.backward()
                optimizer.step()
    return model


def assert_equal(found: dict[str, Tensor], expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-12, msg=name)


def last(done: Finished) -> dict[str, Tensor]:
    assert done.retraining.run.best == 2
    return done.model.state_dict()


# ----------------------------------------------------------------------- steps


@pytest.mark.parametrize("parts", [1, 3, 8, 64])
def test_steps_in_parts_are_those_of_whole_batches(parts: int) -> None:
    expected = plain(F.cross_entropy, masked())

    assert_equal(last(learned(asked(accumulate=parts))), expected)


@pytest.mark.parametrize("most", [1, 4])
def test_full_memory_changes_no_step(most: int) -> None:
    done = learned(asked(), Tagger(most))

    assert "out of memory" in " ".join(done.retraining.run.notes)
    assert_equal(last(done), plain(F.cross_entropy, masked()))


OWN: dict[str, tuple[Loss, int]] = {
    "function": (F.cross_entropy, -100),
    "padding": (nn.CrossEntropyLoss(ignore_index=0), 0),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHTS), -100),
    "smoothed": (
        nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=2, label_smoothing=0.2),
        2,
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_losses_of_torch_count_as_they_do_by_themselves(case: str) -> None:
    loss, ignored = OWN[case]
    data = masked(ignored)
    done = learned(asked(accumulate=4, valid_split=0.1), Second(), loss, data)
    _, held = split_rows(ROWS, 0.1, 0)
    at_once = loss(Second()(data[0][held]).detach(), data[1][held])

    assert_equal(last(done), plain(loss, data))
    first = done.retraining.run.epochs[0].valid_loss
    assert first == pytest.approx(float(at_once), abs=1e-12)


def test_a_loss_of_ones_own_is_weighted_by_samples() -> None:
    def own(output: Tensor, labels: Tensor) -> Tensor:
        terms = F.cross_entropy(output, labels, reduction="none").sum(1)
        return terms.mean()

    done = learned(asked(accumulate=3), Second(), own)

    assert_equal(last(done), plain(own, masked()))


def test_a_batch_without_any_label_is_left_out_and_told() -> None:
    data = masked()
    done = learned(asked(batch_size=1, most_skipped=60))
    run = done.retraining.run
    rows, _ = split_rows(ROWS, 0.1, 0)
    empty = int((data[1][rows] == -100).all(1).sum())

    assert 2 * empty == sum(epoch.skipped for epoch in run.epochs)
    told = "the last: the loss leaves out every label of the batch"
    assert any(told in note for note in run.notes)
    assert_equal(last(done), plain(F.cross_entropy, data, size=1))


def test_the_loss_of_an_epoch_is_the_mean_over_its_labels() -> None:
    """Without steps the model is the same in all batches, so any mean is at once."""
    run = learned(asked(lr=1e-30, epochs=1, batch_size=4)).retraining.run
    (x, y), (rows, _) = masked(), split_rows(ROWS, 0.1, 0)
    expected = float(F.cross_entropy(Second()(x[rows]).detach(), y[rows]))

    assert run.epochs[1].train_loss == pytest.approx(expected, abs=1e-12)


def test_stored_targets_move_as_in_whole_batches() -> None:
    """Hidden losses are means over samples, the loss of the output is over labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    left_out = torch.rand(ROWS, generator=generator) < 0.6
    y = torch.where(left_out, -100, (x[:, 0] > 0).long())

    def weights(mode: str, parts: int) -> dict[str, Tensor]:
        torch.manual_seed(2)
        sigmoids = [nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid()]
        model = nn.Sequential(*sigmoids, nn.Linear(6, 2)).double()
        settings = {"mode": mode, "optimizer": "sgd"}
        usual = asked(accumulate=parts, settings=settings, valid_split=0.0)
        given = replace(usual, method="rai")
        done = learned(given, model, data=(x, y))
        assert done.retraining.run.epochs[-1].skipped == 0
        return done.model.state_dict()

    for mode in ("infer", "table"):
        whole, parted = weights(mode, 1), weights(mode, 4)
        for name, tensor in whole.items():
            torch.testing.assert_close(parted[name], tensor, rtol=0, atol=1e-10)


# ----------------------------------------------------------------------- ranks


def share(ranks: Ranks, given: RetrainOptions) -> Any:
    with joined(ranks) as group:
        done = learned(given, crew=Crew(group))
    state = {name: t.detach().clone() for name, t in done.model.state_dict().items()}
    run = done.retraining.run
    return state, [(epoch.train_loss, epoch.valid_loss) for epoch in run.epochs]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("size", "parts"),
    [pytest.param(11, 1, marks=pytest.mark.slow), (4, 2)],
)
def test_ranks_take_the_steps_of_whole_batches(parallel, size, parts) -> None:
    """In steps of 4 a rank has two sentences at the most, often without a label."""
    given = asked(batch_size=size)
    spread = replace(given, parallel=parallel, accumulate=parts)
    state, losses = together(share, 2, spread)[0]
    alone = learned(given).retraining.run

    assert_equal(state, plain(F.cross_entropy, masked(), size))
    for (trained, valid), epoch in zip(losses, alone.epochs, strict=True):
        assert valid == pytest.approx(epoch.valid_loss, abs=1e-12)
        assert trained == pytest.approx(epoch.train_loss, abs=1e-12)


# ---------------------------------------------------------------------- counts


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.float32])
def test_labels_that_count_are_counted(kind: torch.dtype) -> None:
    loss = resolve_loss("cross-entropy", True)
    labels = torch.tensor([[3, -100], [-100, -100], [1, 156]]).to(kind)

    assert loss is not None
    assert 3.0 == counted(loss, Batch(labels=labels, size=3))
    assert 0.0 == counted(loss, Batch(labels=labels[1:2], size=1))


def test_a_byte_is_no_label_that_is_left_out() -> None:
    loss = resolve_loss("nll", True)
    labels = torch.tensor([156, 0], dtype=torch.uint8)

    assert loss is not None
    assert 2.0 == counted(loss, Batch(labels=labels, size=2))


@pytest.mark.parametrize("name", ["mse", "l1", "bce", "bce-with-logits", "output"])
def test_other_losses_count_samples(name: str) -> None:
    loss = resolve_loss(name, True)

    assert loss is not None
    assert 4.0 == counted(loss, Batch(labels=torch.full((4, 3), -100.0), size=4))


def test_sums_and_subclasses_count_samples() -> None:
    class Own(nn.CrossEntropyLoss):
        pass

    for own in (Own(), nn.NLLLoss(reduction="sum")):
        loss = resolve_loss(own, True)
        assert loss is not None
        assert 2.0 == counted(loss, Batch(labels=torch.tensor([-100, 1]), size=2))


# ------------------------------------------------------------------ validation


@pytest.mark.parametrize("size", [1, 7, 60])
def test_the_validation_loss_is_that_of_all_labels_at_once(size: int) -> None:
    data = masked()
    rows, held = split_rows(ROWS, 0.5, 0)
    expected = float(F.cross_entropy(Second()(data[0][held]).detach(), data[1][held]))
    given = asked(batch_size=size, epochs=1, valid_split=0.5, most_skipped=60)
    first, second = learned(given).retraining.run.epochs

    assert first.valid_loss == pytest.approx(expected, abs=1e-12)
    assert second.valid_loss is not None
    assert math.isfinite(second.valid_loss)
    assert len(rows) == len(held)


class Sinking(Tagger):
    """Its validation is NaN from the start, or from the first step on."""

    def __init__(self, start: bool) -> None:
        super().__init__()
        self.start, self.steps = start, 0

    def forward(self, ids: Tensor) -> Tensor:
        learning = self.training and torch.is_grad_enabled()
        self.steps += learning
        nan = not learning and (self.start or self.steps > 0)
        return super().forward(ids) * (math.nan if nan else 1.0)


@pytest.mark.parametrize("start", [True, False])
def test_an_epoch_whose_loss_is_not_finite_is_never_kept(start: bool) -> None:
    run = learned(asked(), Sinking(start)).retraining.run
    told = "no epoch has a finite validation loss: the model as it came is kept"

    assert run.best == 0
    assert [math.isfinite(e.valid_loss or 0.0) for e in run.epochs] == [
        not start,
        False,
        False,
    ]
    assert (told in run.notes) == start


def test_validation_without_a_label_keeps_the_model_and_says_so() -> None:
    x, y = masked()
    _, held = split_rows(ROWS, 0.1, 0)
    y[held] = -100
    done = learned(asked(), data=(x, y))

    assert done.retraining.run.best == 0
    assert_equal(done.model.state_dict(), Tagger())
    assert any("no epoch has a finite" in note for note in done.retraining.run.notes)


def test_a_finite_epoch_beats_a_start_that_is_not() -> None:
    standing = Standing(parts=1, scores=Scores(loss=math.nan, metric=1.0, samples=4))

    assert standing.is_better(Scores(loss=9.0, metric=0.1, samples=4))
    assert not standing.is_better(Scores(loss=math.inf, metric=1.0, samples=4))


# ------------------------------------------------------------------- curvature


@pytest.mark.parametrize("parts", [1, 8])
def test_curvature_finds_the_classes_where_the_loss_does(parts: int) -> None:
    """Signs are drawn in the shape of the classes in the second dimension."""
    settings = {"kappa": 1, "every": 1}
    usual = asked(accumulate=parts, settings=settings, lr=None, valid_split=0.0)
    given = replace(usual, method="sdagd")
    done = learned(given)
    second = learned(given, Second()).model

    assert_equal(last(done), second)
    assert "curvature over damping, median" in done.retraining.run.epochs[-1].figures
