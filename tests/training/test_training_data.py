"""The data of a training: every container gives the same, splits are as documented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tests.training.courses import (
    ROWS,
    net,
    options,
    same,
    samples,
    split_rows,
    trained,
)
from tests.training.test_training_resume import in_pieces
from vgaudit.api import describe
from vgaudit.data.sources.content import Unreadable
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.job import DataOptions
from vgaudit.training import samples as stores
from vgaudit.training.campaign import Surroundings
from vgaudit.training.opening import open_samples, samples_of
from vgaudit.training.retrain import opened
from vgaudit.training.split import feed
from vgaudit.training.task import train


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Samples one by one, as a user would write them; ``noise`` changes them."""

    def __init__(self, noise: float = 0.0) -> None:
        self.x, self.y = samples()
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x = self.x[row]
        return x + self.noise * torch.randn_like(x), self.y[row]


class Flow(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples in a row, without numbers."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*samples(), strict=True)


def batches(size: int) -> list[tuple[Tensor, Tensor]]:
    x, y = samples()
    return list(zip(x.split(size), y.split(size), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        Rows,
        Flow,
        lambda: TensorDataset(*samples()),
        lambda: DataLoader(Rows(), batch_size=16, shuffle=True),
        lambda: batches(50),
        lambda: [{"input": x, "labels": y} for x, y in batches(40)],
        lambda: tuple(t.numpy() for t in samples()),
    ],
    ids=["dataset", "iterable", "tensors", "loader", "list", "dicts", "numpy"],
)
def test_every_container_trains_the_same(make) -> None:
    expected = trained(net(), options("adam"))
    done = trained(net(), options("adam"), data=make())

    assert same(done.model, expected.model.state_dict())


def test_a_loader_brings_its_batch_size() -> None:
    data = DataLoader(Rows(), batch_size=40)
    done = trained(net(), options("adam", batch_size=None), data=data)

    assert done.retraining.run.epochs[-1].steps == 3 * 3  # 108 rows in steps of 40
    assert any("in an order of our own" in note for note in done.retraining.notes)


def test_samples_that_change_at_random_resume_bit_equal(tmp_path) -> None:
    asked = options("adam", epochs=2)
    folder = tmp_path / "run"
    whole = trained(net(), asked, data=Rows(noise=0.5))
    again = trained(net(), asked, data=Rows(noise=0.5))
    plain = trained(net(), asked, data=Rows())
    done, pieces = in_pieces(net, asked, folder, every=3, data=Rows(noise=0.5))

    assert pieces > 2
    assert same(done.model, whole.model.state_dict())
    assert same(again.model, whole.model.state_dict())
    assert not same(plain.model, whole.model.state_dict())


def test_too_many_samples_are_read_again_and_train_the_same(monkeypatch) -> None:
    kept = trained(net(), options("adam"), data=TensorDataset(*samples()))
    monkeypatch.setattr(stores, "MOST_KEPT", 100)
    read = trained(net(), options("adam"), data=TensorDataset(*samples()))

    assert same(read.model, kept.model.state_dict())


def test_an_endless_stream_is_refused(monkeypatch) -> None:
    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield samples()

    monkeypatch.setattr("vgaudit.training.opening.MOST_KEPT", 10_000)
    with pytest.raises(CannotLoad, match="or never ends"):
        trained(net(), options("adam"), data=endless())


def test_samples_that_cannot_be_read_are_left_out_and_named() -> None:
    class Torn(Rows):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            if row in (3, 50):
                raise Unreadable(f"sample {row}", "torn")
            return super().__getitem__(row)

    done = trained(net(), options("adam"), data=Torn())

    notes = done.retraining.notes
    assert {"skipped: sample 3: torn", "skipped: sample 50: torn"} & set(notes)
    assert done.retraining.run.epochs[-1].skipped == 0


def test_images_are_read_once(tmp_path) -> None:
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            shade = (200 if label == "a" else 30) + number
            picture = Image.new("L", (4, 4), shade)
            picture.save(tmp_path / label / f"{number}.png")
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    said: list[str] = []
    found = open_samples(
        model, DataOptions(data=f"imagefolder:{tmp_path}"), None, said.append
    )

    assert isinstance(found.store, stores.Kept)
    batch = found.batch(torch.tensor([0, 15]))
    assert batch is not None
    assert batch.size == 2
    assert batch.labels.tolist() == [0, 1]
    shape = batch.args[0].shape
    assert shape in ((2, 1, 4, 4), (2, 16))


@given(
    rows=st.integers(12, 400),
    size=st.integers(1, 64),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 3),
)
def test_a_split_is_a_partition_and_an_epoch_visits_every_row_once(
    rows, size, share, seed
) -> None:
    model = nn.Linear(1, 1)
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    opened_rows = samples_of((x, x), model, DataOptions(), lambda _: None)
    fed = feed(opened_rows, None, share=share, size=size, seed=seed)
    train, held = split_rows(rows, share, seed)

    assert torch.equal(fed.train_rows, train)
    assert torch.equal(fed.valid_rows, held)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(rows))
    for epoch in (1, 2):
        order = fed.order(epoch)
        drawn = [fed.step(epoch, number, order) for number in range(fed.steps)]
        seen = torch.cat([d.batch.args[0] for d in drawn]).flatten().long()
        assert sorted(seen.tolist()) == train.tolist()
        assert torch.equal(train[torch.cat([d.rows for d in drawn])], seen)
    whole = fed.everything()
    assert torch.equal(whole.batch.args[0].flatten().long(), train)


def test_batch_normalization_gets_no_batch_of_one() -> None:
    x, y = samples(ROWS + 1)  # 109 to train on with 12 held out: 16 * 6 + 13
    model = net(norm=True)
    rows = samples_of((x, y), model, DataOptions(), lambda _: None)
    assert feed(rows, None, share=0.1, size=12, seed=0).steps == 9
    assert feed(rows, None, share=0.1, size=13, seed=0).steps == 9
    plain = samples_of((x, y), net(), DataOptions(), lambda _: None)
    assert feed(plain, None, share=0.1, size=12, seed=0).steps == 10


@given(rows=st.integers(16, 200), only=st.integers(1, 8), seed=st.integers(0, 3))
def test_a_model_of_one_batch_size_gets_no_other(rows, only, seed) -> None:
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    found = samples_of((x, x), nn.Linear(1, 1), DataOptions(), lambda _: None)
    fed = feed(replace(found, only=only), None, share=0.5, size=None, seed=seed)
    order = fed.order(1)
    drawn = [fed.step(1, number, order) for number in range(fed.steps)]
    held = list(fed.validation())

    sizes = {d.batch.size for d in drawn} | {batch.size for batch in held}
    assert sizes | {batch.size for batch in fed.look(2, 5)} == {only}
    assert len(drawn) == len(fed.train_rows) // only
    assert len(held) == len(fed.valid_rows) // only
    seen = torch.cat([d.rows for d in drawn])
    assert len(seen.unique()) == len(seen)
    assert f"batches of {only} only" in fed.train.notes[-1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 16}, "was exported for batches of 12, not of 16"),
        ({"batch_size": None, "accumulate": 2}, "--accumulate 2 cuts them in parts"),
        (
            {"method": "rai", "batch_size": None, "settings": {"mode": "reference"}},
            "this way of rai takes all samples at once",
        ),
        ({"batch_size": None, "valid_split": 0.05}, "114 samples to train and 6 to"),
    ],
)
def test_what_a_model_of_one_batch_size_cannot_do(given, said) -> None:
    rows = samples_of(samples(), net(), DataOptions(), lambda _: None)
    with pytest.raises(BadConfig, match=said):
        trained(net(), options(**given), data=replace(rows, only=12))


def test_a_program_of_one_batch_size_trains_as_the_model_it_was_made_from() -> None:
    model = net()
    program = torch.export.export(model, (torch.zeros(12, 6),)).module()
    rows = samples_of(samples(), program, DataOptions(), lambda _: None)
    asked = options("adam", batch_size=None)
    done = trained(program, asked, data=replace(rows, only=12))
    expected = trained(model, options("adam", batch_size=12))

    assert done.retraining.run.epochs[-1].steps == 3 * 9
    assert same(done.model, expected.model.state_dict())


def test_a_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BadConfig, match="leave nothing to train or to validate on"):
        trained(net(), options("adam"), data=samples(4))


def test_validation_samples_of_their_own() -> None:
    model, held = net(), samples(30, seed=1)
    task = opened(
        model, describe(model), samples(), valid=held, options=options("adam")
    )
    done = train(task, Surroundings())
    x, y = held
    found = (done.model.eval()(x).argmax(1) == y).double().mean().item()

    assert (done.retraining.split.train, done.retraining.split.valid) == (ROWS, 30)
    assert done.retraining.run.kept.metric == pytest.approx(found)
