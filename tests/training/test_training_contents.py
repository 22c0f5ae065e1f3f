"""Other data under the same name is another training; the same data never is."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.training.courses import FEATURES, furnished, net, options, samples
from tests.training.test_training_readout import Two
from tests.training.test_training_resume import stop_after
from vgaudit.api import describe
from vgaudit.errors import BadConfig
from vgaudit.job import DataOptions
from vgaudit.training import contents as hashing
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import CURRENT, PREVIOUS, RunFolder
from vgaudit.training.contents import contents
from vgaudit.training.opening import open_samples, samples_of
from vgaudit.training.retrain import opened
from vgaudit.training.task import Finished, train

Stacked = tuple[Tensor, Tensor]


class Counted(Dataset):
    """Samples that are read one by one, and may change at random."""

    def __init__(self, stacked: Stacked, change=None) -> None:
        self.stacked, self.change, self.read = stacked, change, 0

    def __len__(self) -> int:
        return len(self.stacked[0])

    def __getitem__(self, row: int) -> Stacked:
        self.read += 1
        x, y = (tensor[row] for tensor in self.stacked)
        return (x if self.change is None else x + self.change()), y


def hashed(data: object) -> str:
    return contents(samples_of(data, net(), DataOptions(), lambda _: None))


def changed(row: int, *, label: bool = False) -> Stacked:
    """Returns the samples, one of which differs."""
    x, y = (tensor.clone() for tensor in samples(500))
    if label:
        y[row] = (y[row] + 1) % 3
    else:
        x[row, -1] += 1e-6
    return x, y


@pytest.mark.parametrize("row", [0, 1, 250, 499])
@pytest.mark.parametrize("label", [False, True])
def test_every_sample_in_memory_counts(row, label) -> None:
    assert hashed(samples(500)) == hashed(samples(500))
    assert hashed(samples(500)) != hashed(changed(row, label=label))


@pytest.mark.parametrize("label", [False, True])
def test_of_large_data_first_last_and_some_between_count(label, monkeypatch) -> None:
    monkeypatch.setattr(hashing, "WHOLE", 100)
    same = hashed(samples(500))
    seen = [row for row in range(500) if hashed(changed(row, label=label)) != same]

    assert len(seen) == hashing.LOOKED_AT
    assert (seen[0], seen[-1]) == (0, 499)
    # Even: 499 / 63 between two, rounded down.
    assert {b - a for a, b in itertools.pairwise(seen)} == {7, 8}


def test_shape_and_type_count() -> None:
    x, y = samples()

    assert hashed((x, y)) != hashed((x, y.int()))
    assert hashed((torch.zeros(8, FEATURES), y[:8])) != hashed(
        (torch.zeros(4, FEATURES), y[:4])
    )


def test_samples_that_are_read_cost_two_looks_however_many_there_are() -> None:
    data = Counted(samples(5000))
    opened_ = samples_of(data, net(), DataOptions(), lambda _: None)
    before = data.read
    first = contents(opened_)

    assert data.read - before == 2 * hashing.LOOKED_AT
    assert first == hashed(Counted(samples(5000))) != hashed(Counted(samples(4999)))


def test_random_changes_by_the_seed_are_the_same_data() -> None:
    drawn = [hashed(Counted(samples(), lambda: torch.randn(FEATURES))) for _ in "ab"]

    assert drawn[0] == drawn[1] != ""
    assert drawn[0] != hashed(Counted(samples()))


def test_random_changes_of_their_own_are_not_compared() -> None:
    own = torch.Generator().manual_seed(1)

    def draw() -> Tensor:
        return torch.randn(FEATURES, generator=own)

    assert hashed(Counted(samples(), draw)) == ""


def test_data_that_fails_has_no_hash_and_leaves_no_trace() -> None:
    def fail() -> Tensor:
        raise ValueError("no such sample")

    data = Counted(samples())
    found = samples_of(data, net(), DataOptions(), lambda _: None)
    data.change = fail

    assert contents(found) == ""
    assert not found.skips.sentences()


def interrupted(
    folder: RunFolder,
    place: Path,
    model: nn.Module | None = None,
    *,
    resume: bool = False,
    output: str | None = None,
) -> Finished:
    """Trains for four steps; with ``resume`` from there to the end."""
    model = net() if model is None else model
    asked = options("adam", valid_data=str(place / "valid.npz"))
    wanted = DataOptions(data=str(place / "data.npz"))
    data = open_samples(model, wanted, None, lambda _: None)
    task = opened(model, describe(model), data, options=asked)
    task = replace(task, probe=replace(task.probe, output=output))
    stop = (lambda: False) if resume else stop_after(4)
    around = Surroundings(folder=folder, every=0.0, resume=resume, stop=stop)
    with folder.held():
        return train(task, around)


@pytest.fixture
def begun(tmp_path: Path) -> tuple[RunFolder, Path]:
    """A training that was interrupted, and the folder of its data."""
    place = furnished(tmp_path, "")
    x, y = samples(40, seed=1)
    np.savez(place / "valid.npz", x=x.numpy(), y=y.numpy())
    folder = RunFolder(tmp_path / "run")
    assert interrupted(folder, place).retraining.early
    return folder, place


def spoil(path: Path) -> None:
    """Overwrites a file of samples with as many others."""
    with np.load(path) as held:
        x, y = held["x"], held["y"]
    np.savez(path, x=-x, y=(y + 1) % 3)


@pytest.mark.parametrize(
    ("name", "told"),
    [("data", "contents of the data"), ("valid", "contents of the validation data")],
)
def test_a_resume_on_other_data_is_refused(begun, name, told) -> None:
    folder, place = begun
    spoil(place / f"{name}.npz")
    with pytest.raises(BadConfig) as caught:
        interrupted(folder, place, resume=True)

    _, _, listed = caught.value.message.partition("another training: ")
    assert listed.startswith(f"{told}: ")
    assert "; " not in listed


def test_a_resume_on_another_output_is_refused(begun, tmp_path) -> None:
    _, place = begun
    folder, model = RunFolder(tmp_path / "of two"), Two(named=True)
    interrupted(folder, place, model, output="one")
    with pytest.raises(BadConfig) as caught:
        interrupted(folder, place, model, output="other", resume=True)

    assert caught.value.message.endswith(
        "another training: --output: one in the checkpoint, other now"
    )


def test_the_same_data_is_resumed(begun) -> None:
    folder, place = begun

    assert not interrupted(folder, place, resume=True).retraining.early


def test_a_checkpoint_of_an_older_version_is_resumed(begun) -> None:
    folder, place = begun
    later = {"--output", "contents of the data", "contents of the validation data"}
    for name in (CURRENT, PREVIOUS):
        state = torch.load(folder.path / name, weights_only=True)
        known = state["identity"]
        assert later <= set(known)
        state["identity"] = {k: v for k, v in known.items() if k not in later}
        torch.save(state, folder.path / name)
    spoil(place / "data.npz")

    assert not interrupted(folder, place, resume=True).retraining.early
