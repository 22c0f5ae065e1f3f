"""``vgaudit retrain`` as a user types it, interrupts it, kills it and resumes it."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vgaudit
from tests.training.courses import furnished, net

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

NETS = """
import sys
import time
import torch
from torch import nn


def quick():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Sigmoid(),
        nn.Linear(8, 3),
    )


class Slow(nn.Sequential):
    def forward(self, x):
        if self.training:
            time.sleep(0.02)
        return super().forward(x)


def slow():
    return Slow(*quick())


class Stuck(nn.Sequential):
    def forward(self, x):
        if self.training and isinstance(self[0].weight, nn.Parameter):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 14:
                print("stuck", file=sys.stderr, flush=True)
                time.sleep(600)
            time.sleep(0.02)
        return super().forward(x)


def stuck():
    return Stuck(*quick())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model factory and labelled samples."""
    return furnished(tmp_path, NETS)


def words(place: Path, *more: str, factory: str = "quick") -> list[str]:
    return [
        "retrain",
        f"{place}/nets.py:{factory}",
        "--data",
        str(place / "data.npz"),
        "--batch-size",
        "16",
        "--epochs",
        "3",
        *more,
    ]


def test_a_training_is_shown_proved_and_written(shell, place) -> None:
    out = place / "out.safetensors"
    asked = words(place, "--with", "sdagd", "--control", "adam", "-o", str(out))
    done = shell(*asked)

    assert done.code == 0, done.err
    assert "trained with sdagd: 3 epochs, 21 steps, loss cross-entropy" in done.out
    assert f"written: {out}" in done.out
    assert "gradient health" in done.out
    assert "vgaudit: sdagd epoch 3 of 3: loss " in done.err
    assert "vgaudit: adam epoch 3 of 3: loss " in done.err
    assert ["data.npz", "nets.py", "out.safetensors"] == sorted(
        p.name for p in place.iterdir() if p.is_file()
    )
    assert not (place / "out.safetensors.run").exists()
    model = vgaudit.load(out, arch=f"{place}/nets.py:quick")
    state = load_file(out)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    again = shell(*asked)
    assert again.code == 3
    assert "exists already" in again.err


def test_json_holds_every_epoch(shell, place) -> None:
    done = shell(*words(place, "--with", "adam", "--format", "json"))

    assert done.code == 0, done.err
    record = json.loads(done.out)["retraining"]
    assert [0, 1, 2, 3] == [epoch["number"] for epoch in record["run"]["epochs"]]
    assert record["written"] == []
    assert record["before"]["flow"]["layers"]
    assert record["split"] == {
        "train": 108,
        "valid": 12,
        "how": "12 of 120 samples, held out by seed 0",
    }


def test_a_converted_model_is_trained_with_its_recipe(shell, place) -> None:
    first, second = place / "ar.safetensors", place / "trained.safetensors"
    factory = f"{place}/nets.py:quick"
    data = ("--data", str(place / "data.npz"))
    converted = shell("convert", factory, "--to", "ar", *data, "-o", str(first))
    assert converted.code == 0, converted.err
    asked = ["retrain", str(first), "--arch", factory, "--with", "adamw", *data]
    done = shell(*asked, "--epochs", "2", "-o", str(second))

    assert done.code == 0, done.err
    before = vgaudit.load(first, arch=factory)
    after = vgaudit.load(second, arch=factory)
    assert type(before[0]).__name__ == type(after[0]).__name__ == "AutoRotatedLinear"
    assert not torch.equal(before[0].weight, after[0].weight)
    assert (place / "trained.recipe.json").is_file()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--with", "adam", "-o", "out.bin"], 2, "must end in .safetensors or .pt"),
        (["--with", "adam", "--resume"], 2, "--resume needs the folder"),
        (["--with", "adam", "--setting", "beta1"], 2, "not of the form NAME=VALUE"),
        (["--with", "adam", "--setting", "gamma=1"], 2, "adam has no setting 'gamma'"),
        (["--with", "adam", "--amp", "fp16"], 2, "is for CUDA"),
        (["--with", "sdagd", "--control", "adan"], 2, "did you mean adam?"),
    ],
)
def test_wrong_words_are_told(cli, place, more, code, message) -> None:
    done = cli(*words(place, *more), "--no-progress")

    assert done.code == code
    assert message in done.err + done.out


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "option",
    [
        *("lr", "clip", "weight-decay", "momentum", "valid-split", "warmup"),
        *("timeout", "checkpoint-every"),
    ],
)
def test_numbers_that_are_none_are_refused_by_name(
    cli, here, place, option, value
) -> None:
    asked = words(place, "--with", "adam", f"--{option}", value)
    done = cli(*asked, "--no-progress")

    assert done.code == 2
    told = done.err.splitlines()
    assert told[0].startswith("error: ")
    assert f"--{option}" in told[0]
    assert told[1].startswith("help: ")


@pytest.mark.parametrize("command", [["scan"], ["retrain", "--with", "adam"], ["fix"]])
def test_labels_that_were_guessed_are_told_with_the_error(
    cli, here, place, command
) -> None:
    names = ",".join(f"f{number}" for number in range(6))
    rows = "\n".join(",".join(["0.5"] * 5 + [str(n % 3)]) for n in range(40))
    (place / "bare.csv").write_text(f"{names}\n{rows}\n")
    done = cli(
        *(*command, f"{place}/nets.py:quick"),
        *("--data", str(place / "bare.csv"), "--no-progress"),
    )

    assert done.code == 3
    assert "mat1 and mat2 shapes cannot be multiplied" in done.err
    assert "labels are in the last column, 'f5'" in done.err
    assert "a heading such as 'label'" in done.err


def test_a_program_brings_its_batch_size(cli, here, place) -> None:
    program = torch.export.export(net(), (torch.zeros(4, 6),))
    torch.export.save(program, place / "only4.pt2")
    out = place / "out.safetensors"
    asked = ("retrain", f"{place}/only4.pt2", "--allow-code", "--with", "adam")
    data = ("--data", str(place / "data.npz"), "--epochs", "1", "--no-progress")
    done = cli(*asked, *data, "--batch-size", "64", "-o", str(out))

    assert done.code == 2
    assert "exported for batches of 4, not of 64" in done.err
    assert not out.exists()
    done = cli(*asked, *data, "-o", str(out))
    assert done.code == 0, done.err
    assert "batches of 4 only: 0 training samples are left out" in done.out
    assert set(load_file(out)) == set(program.state_dict)


def test_data_is_needed(cli, place) -> None:
    done = cli("retrain", f"{place}/nets.py:quick", "--with", "adam", "--no-progress")

    assert done.code == 2
    assert "training needs data" in done.err


def start(
    place: Path, out: Path, *more: str, factory: str = "slow"
) -> subprocess.Popen[str]:
    asked = words(place, "--with", "sdagd", "-o", str(out), *more, factory=factory)
    return subprocess.Popen(
        [sys.executable, "-m", "vgaudit", *asked, "--checkpoint-every", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def eventually(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(path))


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_finishes_the_step_and_saves(place, number, code) -> None:
    out, run = place / "out.safetensors", place / "out.safetensors.run"
    process = start(place, out, "--epochs", "2000")
    eventually((run / "checkpoint.pt").is_file)
    process.send_signal(number)
    status, text, err = finished(process)

    assert status == code, err
    assert "finishing the step and saving; once more ends at once" in err
    assert "interrupted: sdagd was interrupted in epoch" in text
    assert "to continue: vgaudit retrain" in text
    assert "--resume" in text
    assert not out.exists()
    assert (run / "checkpoint.pt").is_file()


@posix
def test_the_second_signal_ends_at_once(place) -> None:
    process = start(place, place / "out.safetensors", factory="stuck")
    assert process.stderr is not None
    assert any("stuck" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None  # it waits for the step, which never ends
    process.send_signal(signal.SIGINT)
    status, text, err = finished(process)

    assert status == 130
    assert err.endswith("interrupted\n")
    assert text == ""
    assert (place / "out.safetensors.run" / "checkpoint.pt").is_file()


@posix
@pytest.mark.parametrize(
    ("kills", "epochs"), [(3, "25"), pytest.param(50, "120", marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_it_ends_bit_equal(place, kills, epochs) -> None:
    length = ("--epochs", epochs)
    out, whole = place / "out.safetensors", place / "whole.safetensors"
    folder = place / "out.safetensors.run"
    generator = random.Random(0)
    for attempt in range(kills):
        known = _stamp(folder)
        process = start(place, out, *length, *(["--resume"] if attempt else []))
        while process.poll() is None and _stamp(folder) == known:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.3))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()
        assert not out.exists()
    eventually(lambda: not _held(folder))
    refused = finished(start(place, out, *length))
    assert refused[0] == 2
    assert "holds an unfinished training" in refused[2]
    status, text, err = finished(start(place, out, *length, "--resume"))

    assert status == 0, err + text
    assert finished(start(place, whole, *length))[0] == 0
    assert equal(out, whole)
    assert not folder.exists()


@posix
def test_a_time_limit_saves_and_a_resume_ends_bit_equal(place) -> None:
    length = ("--epochs", "60")
    out, whole = place / "out.safetensors", place / "whole.safetensors"
    folder, report = place / "out.safetensors.run", place / "out.json"
    asked = (*length, "--timeout", "9", "--report", f"json={report}")
    status, text, err = finished(start(place, out, *asked))

    assert status == 3, err + text
    assert "ran longer than 9 s: finishing the step and saving" in err
    assert "interrupted: sdagd was interrupted in epoch" in text
    assert "to continue: vgaudit retrain" in text
    assert "--resume" in text
    assert not out.exists()
    assert (folder / "checkpoint.pt").is_file()
    assert json.loads(report.read_text())["retraining"]["early"]
    # Word for word, but for the time limit, which would end it again.
    said = text.partition("to continue: vgaudit ")[2].partition("\n\n")[0]
    command = shlex.split(said.replace("--timeout 9", "").replace("\n", " "))
    again = [sys.executable, "-m", "vgaudit", *command]
    done = subprocess.run(again, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert not json.loads(report.read_text())["retraining"]["early"]
    assert finished(start(place, whole, *length))[0] == 0
    assert equal(out, whole)
    assert not folder.exists()


def test_what_cannot_be_written_is_refused_before_the_training(shell, place) -> None:
    nets = place / "nets.py"
    local = (
        "def local():\n    net = quick()\n    net.other = lambda x: x\n    return net\n"
    )
    nets.write_text(NETS + local)
    asked = words(place, "--with", "adam", "-o", str(place / "out.pt"), factory="local")
    done = shell(*asked)

    assert done.code == 3
    assert "the module cannot be pickled" in done.err
    assert "-o OUT.safetensors" in done.err
    assert "epoch" not in done.err + done.out
    assert not (place / "out.pt.run").exists()


@posix
def test_a_failed_write_leaves_what_was_trained(place) -> None:
    """The place of the output is taken while it trains, by a folder."""
    out, whole = place / "out.safetensors", place / "whole.safetensors"
    asked = ("--with", "adam", "--epochs", "20")
    process = start(place, out, *asked)
    eventually((place / "out.safetensors.run" / "checkpoint.pt").is_file)
    out.mkdir()
    status, told, err = finished(process)

    assert status == 3, told
    assert "what was trained is kept in" in err
    assert "--resume" in err
    out.rmdir()
    status, told, err = finished(start(place, out, *asked, "--resume"))
    assert status == 0, err
    assert finished(start(place, whole, *asked))[0] == 0
    assert equal(out, whole)


def _stamp(folder: Path) -> float:
    try:
        return (folder / "checkpoint.pt").stat().st_mtime
    except OSError:
        return 0.0


def _held(folder: Path) -> bool:
    """Tells whether a dying worker still holds the folder."""
    import fcntl

    if not (folder / "lock").exists():
        return False
    with (folder / "lock").open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


@pytest.mark.data
def test_mnist_through_the_command(shell, tmp_path) -> None:
    root = os.environ.get("VGAUDIT_TEST_DATA")
    if not root or not (Path(root) / "MNIST").is_dir():
        pytest.skip("VGAUDIT_TEST_DATA names no folder with MNIST")
    nets = NETS.replace("nn.Linear(6, 8)", "nn.Flatten(), nn.Linear(784, 64)")
    nets = nets.replace("nn.Linear(8, 8)", "nn.Linear(64, 64)")
    (tmp_path / "nets.py").write_text(
        nets.replace("nn.Linear(8, 3)", "nn.Linear(64, 10)")
    )
    done = shell(
        "retrain",
        f"{tmp_path}/nets.py:quick",
        "--data",
        f"torchvision:MNIST@{root}",
        "--with",
        "sdagd",
        "--control",
        "sgd",
        "--epochs",
        "1",
        "--batch-size",
        "128",
        "--format",
        "json",
    )

    assert done.code == 0, done.err
    record = json.loads(done.out)["retraining"]
    assert record["split"]["train"] == 54_000
    assert record["run"]["epochs"][1]["metric"] > 0.9
