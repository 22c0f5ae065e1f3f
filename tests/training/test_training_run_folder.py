"""The folder of checkpoints is gone in the end, but for one that was there before."""

from __future__ import annotations

from pathlib import Path

import pytest

import vgaudit
from tests.training.courses import furnished, net, options, samples
from vgaudit.training.checkpoint import CURRENT, RunFolder

NETS = """
import torch
from torch import nn


def quick():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model factory and labelled samples."""
    return furnished(tmp_path, NETS)


def asked(place: Path, *more: str) -> list[str]:
    return [
        *("retrain", f"{place}/nets.py:quick", "--with", "adam", "--epochs", "1"),
        *("--data", str(place / "data.npz"), "--no-progress", *more),
        *("--run-folder", str(place / "run")),
    ]


@pytest.mark.parametrize("written", [True, False])
def test_the_folder_of_a_whole_training_is_removed(shell, place, written) -> None:
    """In processes of their own: there the sandbox keeps the worker from it."""
    more = ("-o", str(place / "out.safetensors")) if written else ()
    done = shell(*asked(place, *more))

    assert done.code == 0, done.err
    assert (place / "out.safetensors").is_file() == written
    assert not (place / "run").exists()


def test_an_empty_folder_that_was_there_stays(cli, here, place) -> None:
    (place / "run").mkdir()
    done = cli(*asked(place))

    assert done.code == 0, done.err
    assert list((place / "run").iterdir()) == []


def test_what_else_is_in_a_folder_stays(cli, here, place) -> None:
    (place / "run").mkdir()
    (place / "run" / "mine.txt").write_text("mine")
    done = cli(*asked(place))

    assert done.code == 0, done.err
    assert [path.name for path in (place / "run").iterdir()] == ["mine.txt"]


def test_a_training_that_is_refused_leaves_no_folder(cli, here, place) -> None:
    done = cli(*asked(place, "--control", "adan"))

    assert done.code == 2
    assert not (place / "run").exists()


def test_a_repair_leaves_no_folder(cli, here, place) -> None:
    words = asked(place, "--no-trial", "--valid-split", "0.4")
    unasked = {"--with", "adam", "--epochs", "1"}
    done = cli("fix", *(word for word in words[1:] if word not in unasked))

    assert done.code in (0, 1), done.err
    assert not (place / "run").exists()


def test_a_folder_with_checkpoints_goes_with_them(tmp_path) -> None:
    for name in ("new", "given", "resumed"):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "resumed").mkdir(exist_ok=True)
        (tmp_path / "resumed" / CURRENT).touch()
        folder = RunFolder(tmp_path / name)
        with folder.held():
            folder.save({})
            folder.clear()

    assert [path.name for path in tmp_path.iterdir()] == ["given"]


@pytest.mark.parametrize("given", [False, True])
def test_from_python_too(tmp_path, given) -> None:
    folder = tmp_path / "run"
    if given:
        folder.mkdir()
    asked = options("adam", epochs=1)
    vgaudit.retrain(net(), samples(), options=asked, run_folder=folder)

    assert folder.exists() == given
