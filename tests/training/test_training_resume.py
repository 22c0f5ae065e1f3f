"""Resumed trainings end bit-equal; damaged and foreign checkpoints are told."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.main import get_command

import vgaudit
from tests.training.courses import Cliff, net, options, same, samples, trained
from vgaudit.cli.app import app
from vgaudit.errors import BadConfig, CannotLoad, CannotWrite, VgauditError
from vgaudit.retraining import RetrainOptions
from vgaudit.training import methods, optimizers
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import CURRENT, PREVIOUS, RunFolder
from vgaudit.training.identity import WORDS
from vgaudit.training.method import Entry
from vgaudit.training.retrain import folder_for
from vgaudit.training.task import Finished

CURVED = {"kappa": "100", "every": "3"}


def stop_after(steps: int) -> Callable[[], bool]:
    """Returns what asks for the end after so many steps."""
    left = iter(range(steps, -1, -1))
    return lambda: next(left, 0) <= 1


def in_pieces(
    make: Callable[[], nn.Module],
    asked: RetrainOptions,
    path: Path,
    *,
    every: int,
    data: object = None,
) -> tuple[Finished, int]:
    """Trains with an interruption after every few steps; returns how many."""
    folder = RunFolder(path)
    pieces = 0
    with folder.held():
        while True:
            around = Surroundings(
                folder=folder, resume=pieces > 0, stop=stop_after(every)
            )
            torch.manual_seed(pieces)  # a resumed process starts anywhere
            done = trained(make(), asked, around, data)
            if not done.retraining.early:
                return done, pieces
            pieces += 1


def timeless(run: object) -> object:
    """Returns a record without its wall-clock times."""
    return replace(run, epochs=tuple(replace(e, seconds=0.0) for e in run.epochs))


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda: net(dropout=0.3), options("adam")),
        (lambda: net(norm=True), options("sgd", accumulate=3, clip=0.5)),
        (Cliff, options("sdagd", settings={"kappa": "100", "every": "1"})),
        (net, options("sdagd", settings=CURVED)),
        (lambda: net(depth=21), options("sdagd", epochs=2, settings={"adapt": "yes"})),
        (net, options("centred-adam", schedule="cosine")),
        (net, options("adact", epochs=2, schedule="step")),
        (lambda: net(dropout=0.1), options("adamw", epochs=9, lr=0.1, patience=2)),
    ],
    ids=["adam", "sgd", "skips", "sdagd", "deep", "centred", "adact", "patience"],
)
def test_a_resumed_training_is_bit_equal(tmp_path, make, asked, every) -> None:
    whole = trained(make(), asked)
    done, pieces = in_pieces(make, asked, tmp_path / "run", every=every)

    assert pieces > 0
    assert same(done.model, whole.model.state_dict())
    assert timeless(whole.retraining.run) == timeless(done.retraining.run)


def test_controls_resume_too(tmp_path) -> None:
    asked = options("sdagd", controls=("adam", "sgd:lr=0.05"), epochs=2)
    whole = trained(net(dropout=0.2), asked)
    done, pieces = in_pieces(lambda: net(dropout=0.2), asked, tmp_path / "run", every=5)

    assert pieces >= 6
    assert same(done.model, whole.model.state_dict())
    for a, b in zip(whole.retraining.controls, done.retraining.controls, strict=True):
        assert timeless(a) == timeless(b)
    assert whole.retraining.against == done.retraining.against


def test_a_whole_batch_method_resumes(tmp_path, monkeypatch) -> None:
    whole = Entry(build=optimizers.adam, whole=lambda _options: True)
    monkeypatch.setitem(methods._GRADIENT, "adam", whole)
    asked = options("adam", epochs=6)
    straight = trained(net(), asked)
    done, pieces = in_pieces(net, asked, tmp_path / "run", every=2)

    assert pieces >= 2
    assert same(done.model, straight.model.state_dict())
    assert [e.steps for e in done.retraining.run.epochs] == [0, 1, 2, 3, 4, 5, 6]


def interrupted(path: Path, asked: RetrainOptions, steps: int = 4) -> RunFolder:
    folder = RunFolder(path)
    with folder.held():
        around = Surroundings(folder=folder, every=0.0, stop=stop_after(steps))
        done = trained(net(), asked, around)
    assert done.retraining.early
    return folder


def resumed(folder: RunFolder, asked: RetrainOptions) -> Finished:
    with folder.held():
        return trained(net(), asked, Surroundings(folder=folder, resume=True))


def assert_way_out(error: VgauditError, folder: RunFolder) -> None:
    """What the hint names must do: --force without --resume clears the folder."""
    given, place = "--force in place of --resume", str(folder.path)
    assert given in error.hint
    with pytest.raises(BadConfig, match="holds an unfinished training"):
        folder_for(None, place, resume=False, force=False)
    folder_for(None, place, resume=False, force=True)
    assert not folder.holds_checkpoint()


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path) -> None:
    asked = options("adam")
    folder = interrupted(tmp_path / "run", asked)
    current = tmp_path / "run" / CURRENT
    current.write_bytes(current.read_bytes()[:-500])
    done = resumed(folder, asked)

    assert any(
        "checkpoint.pt is damaged" in note and "the one before it was used" in note
        for note in done.retraining.notes
    )
    assert same(done.model, trained(net(), asked).model.state_dict())


def test_a_flipped_bit_is_found(tmp_path) -> None:
    asked = options("adam")
    folder = interrupted(tmp_path / "run", asked)
    current = tmp_path / "run" / CURRENT
    with zipfile.ZipFile(current) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        record = archive.read(largest)
    content = bytearray(current.read_bytes())
    content[content.index(record) + len(record) // 2] ^= 1
    current.write_bytes(bytes(content))
    done = resumed(folder, asked)

    assert any("is damaged" in note for note in done.retraining.notes)


def test_two_damaged_checkpoints_are_an_error(tmp_path) -> None:
    asked = options("adam")
    folder = interrupted(tmp_path / "run", asked)
    for name in (CURRENT, PREVIOUS):
        (tmp_path / "run" / name).write_bytes(b"PK nothing")

    with pytest.raises(
        CannotLoad, match=r"there is no checkpoint to resume.*damaged"
    ) as caught:
        resumed(folder, asked)
    assert_way_out(caught.value, folder)


def test_another_training_is_refused_with_its_differences(tmp_path) -> None:
    folder = interrupted(tmp_path / "run", options("adam"))

    with pytest.raises(BadConfig) as caught:
        resumed(folder, options("sgd", lr=0.5))
    assert "--with: adam in the checkpoint, sgd now" in caught.value.message
    assert "--lr: nothing in the checkpoint, 0.5 now" in caught.value.message
    assert "weights" not in caught.value.message

    around = Surroundings(folder=folder, resume=True)
    with folder.held(), pytest.raises(BadConfig, match="tensors of the model: 6"):
        trained(net(depth=3), options("adam"), around)
    assert_way_out(caught.value, folder)


def test_differences_are_told_in_words_of_the_command_line(tmp_path) -> None:
    begun = options("adam", settings={"beta1": "0.8", "eps": "1e-7"}, controls=("sgd",))
    folder = interrupted(tmp_path / "run", begun)
    now = options("adam", settings={"beta1": "0.7"}, controls=("sgd", "adamw"))
    with pytest.raises(BadConfig) as caught:
        resumed(folder, now)
    told = caught.value.message.partition(": ")[2].split("; ")

    assert told == [
        "--control: sgd in the checkpoint, sgd adamw now",
        "--setting beta1: 0.8 in the checkpoint, 0.7 now",
        "--setting eps: 1e-7 in the checkpoint, nothing now",
    ]
    known = get_command(app).commands["retrain"]  # type: ignore[attr-defined]
    spelled = {word for param in known.params for word in param.opts}
    assert {words.split()[0].rstrip(":") for words in told} <= spelled
    every = {f"--{WORDS.get(f.name, f.name.replace('_', '-'))}" for f in fields(now)}
    assert every - spelled == {"--settings", "--most-skipped"}


def test_another_schema_is_refused(tmp_path) -> None:
    folder = interrupted(tmp_path / "run", options("adam"))
    for name in (CURRENT, PREVIOUS):
        path = tmp_path / "run" / name
        state = torch.load(path, weights_only=True)
        torch.save({**state, "schema": 99}, path)

    with pytest.raises(
        BadConfig, match="has schema 99, and this version reads 3"
    ) as caught:
        resumed(folder, options("adam"))
    assert_way_out(caught.value, folder)


def test_nothing_to_resume_begins_anew_and_says_so(tmp_path) -> None:
    done = resumed(RunFolder(tmp_path / "run"), options("adam"))

    assert any("begun anew" in note for note in done.retraining.notes)
    assert same(done.model, trained(net(), options("adam")).model.state_dict())


def test_a_folder_serves_one_training_at_a_time(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    with (
        folder.held(),
        pytest.raises(CannotWrite, match="another process trains"),
        RunFolder(tmp_path / "run").held(),
    ):
        raise AssertionError("held twice")


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    folder = interrupted(tmp_path / "run", options("adam"))
    before = (tmp_path / "run" / CURRENT).read_bytes()

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CannotWrite, match="No space left"):
        folder.save({"a": 1})
    assert before == (tmp_path / "run" / CURRENT).read_bytes()
    assert {CURRENT, PREVIOUS, "lock"} == {p.name for p in (tmp_path / "run").iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_in_python_saves_and_a_resume_ends_bit_equal(tmp_path) -> None:
    asked = options("adam", epochs=4)

    class Once(nn.Module):
        """Presses Ctrl-C in the middle of a step."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.inner, self.at, self.calls = net(), at, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training and torch.is_grad_enabled()
            if self.calls == self.at:
                self.at = -1
                os.kill(os.getpid(), signal.SIGINT)
            return self.inner(x)

    place = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="resume=True continues"):
        vgaudit.retrain(Once(17), samples(), options=asked, run_folder=place)
    with pytest.raises(BadConfig, match="holds an unfinished training"):
        vgaudit.retrain(Once(-1), samples(), options=asked, run_folder=place)
    done = vgaudit.retrain(
        Once(-1), samples(), options=asked, run_folder=place, resume=True
    )
    whole = vgaudit.retrain(Once(-1), samples(), options=asked)

    assert same(done.model, whole.model.state_dict())
    assert not place.exists()
    assert done.comparison.before.attenuation is not None
