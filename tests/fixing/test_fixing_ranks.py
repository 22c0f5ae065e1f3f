"""A repair that several ranks share is that of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.networks import LIMIT, free_port, together
from tests.distributed.test_distributed_command import ROOT, shell, torchrun
from tests.fixing.models import Stop, fixed, healthy, sick, task
from tests.fixing.test_fixing_repair import PLAIN, RESCALED, only
from vgaudit.distributed import Ranks, joined
from vgaudit.errors import CannotRewrite
from vgaudit.fixing import FixOptions
from vgaudit.plain import to_plain
from vgaudit.repair import series
from vgaudit.repair.bench import Bench, Made, Turn
from vgaudit.repair.sharing import Sharing
from vgaudit.training.crew import Crew

OPTIONS = FixOptions(budget=600.0, most_steps=60)
TIMES = {"seconds", "step_seconds", "expected", "started", "version", "run"}
"""What tells of time, or of a training's own clock."""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Computes with one thread, as the ranks do: the order of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def timeless(value: Any) -> Any:
    """Returns plain values without what differs between two equal runs."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return value


def repaired(
    folder: Path | None = None,
    *,
    stop: int | None = None,
    resume: bool = False,
    sharing: Sharing | None = None,
) -> tuple[Any, list[Any]]:
    """Returns a repair as plain values, and the weights that it keeps."""
    with pytest.MonkeyPatch.context() as patch:
        only(patch, RESCALED, PLAIN)
        done = fixed(
            *(sick(6), task(600), OPTIONS),
            folder=folder,
            stop=Stop(stop),
            resume=resume,
            sharing=sharing or Sharing(),
        )
    losses = [
        [epoch.valid_loss for epoch in a.run.epochs] if a.run else []
        for a in done.fixing.attempts
    ]
    state = [t.tolist() for t in done.model.state_dict().values()]
    return (timeless(to_plain(done.fixing)), losses), state


def shared(
    ranks: Ranks, folder: str | None, stop: int | None, resume: bool
) -> tuple[Any, list[Any]]:
    with joined(ranks) as group:
        place = Path(folder) if folder is not None and ranks.first else None
        return repaired(place, stop=stop, resume=resume, sharing=Sharing(Crew(group)))


@pytest.fixture(scope="module")
def alone() -> tuple[Any, list[Any]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return repaired()
    finally:
        torch.set_num_threads(before)


def test_two_ranks_repair_as_one_process_does(alone: tuple[Any, list[Any]]) -> None:
    first, second = together(shared, 2, None, None, False)

    assert "repaired" == alone[0][0]["status"]
    assert alone == first
    # The others know all that was tried, and keep the model as it came.
    kept = {**alone[0][0], "after": None}
    assert kept == {**second[0][0], "after": None}
    assert alone[0][1] == second[0][1]
    assert [t.tolist() for t in sick(6).state_dict().values()] == second[1]


@pytest.mark.slow
def test_more_ranks_than_a_round_has_trainings_left(
    alone: tuple[Any, list[Any]],
) -> None:
    found = together(shared, 4, None, None, False)

    assert alone == found[0]


def test_an_interrupted_repair_goes_on_with_another_number_of_ranks(
    tmp_path: Path, alone: tuple[Any, list[Any]]
) -> None:
    folder = tmp_path / "run"
    cut, beside = together(shared, 2, str(folder), 200, False)
    done = len(cut[0][0]["attempts"])

    assert "interrupted" == cut[0][0]["status"] == beside[0][0]["status"]
    assert "interrupted in training" in cut[0][0]["early"]
    assert 2 <= done < len(alone[0][0]["attempts"])
    again = repaired(folder, resume=True)
    assert alone == again


def test_what_one_process_began_two_ranks_end(
    tmp_path: Path, alone: tuple[Any, list[Any]]
) -> None:
    folder = tmp_path / "run"
    repaired(folder, stop=200)

    assert alone == together(shared, 2, str(folder), None, True)[0]


def left_alone(ranks: Ranks) -> tuple[str, str, int]:
    with joined(ranks) as group:
        found = fixed(healthy(), task(400), OPTIONS, sharing=Sharing(Crew(group)))
    trial = found.fixing.trial
    assert trial is not None
    return found.fixing.status, found.fixing.reason, len(trial.attempts)


def test_a_healthy_model_is_tried_by_the_first_rank() -> None:
    done = fixed(healthy(), task(400), OPTIONS).fixing
    assert done.trial is not None
    expected = (done.status, done.reason, len(done.trial.attempts))

    assert [expected] * 2 == together(left_alone, 2)


# -------------------------------------------------------------------- failures


def failing(ranks: Ranks, way: str) -> Any:
    """The second rank fails in its second training."""
    train, calls = Bench.train, []

    def failed(bench: Bench, turn: Turn, watcher: Any) -> Made:
        calls.append(turn)
        if ranks.rank == 1 and len(calls) == 2:
            if way == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("the arm is ill")
        return train(bench, turn, watcher)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bench, "train", failed)
        return shared(ranks, None, None, False)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "rank 1 failed: ValueError: the arm is ill"),
        ("killed", "rank 1 failed: its process ended without a word"),
    ],
)
def test_a_rank_that_fails_ends_the_repair_with_one_error(way: str, said: str) -> None:
    first, second = together(failing, 2, way)

    assert ("CannotRun", said) == first
    assert second == (None if way == "killed" else first)


def planless(ranks: Ranks) -> Any:
    def none_fits(*_given: object) -> None:
        raise CannotRewrite("no treatment fits the model: x", hint="by hand")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series, "planned", none_fits)
        return shared(ranks, None, None, False)


def test_where_nothing_fits_all_ranks_say_so() -> None:
    first, second = together(planless, 2)

    assert ("CannotRewrite", "no treatment fits the model: x") == first
    assert "CannotRewrite" == second[0]


# ------------------------------------------------------------ the command line


def words(out: str, *more: str) -> list[str]:
    return [
        *("fix", "net.py:sick", "--allow-code", "--data", "data.pt", "--trials", "1"),
        *("--most-steps", "60", "-o", out, "--format", "json", *more),
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a sick model and its data."""
    code = "from tests.fixing.models import sick_and_short as sick\n"
    (tmp_path / "net.py").write_text(code)
    x, y = task(1000)
    torch.save({"x": x, "y": y}, tmp_path / "data.pt")
    return tmp_path


@pytest.mark.slow
def test_torchrun_fixes_what_one_process_fixes(place: Path) -> None:
    one = shell(place, "-m", "vgaudit", *words("one.safetensors"))
    two = torchrun(place, *words("two.safetensors"))

    found = [json.loads(done.stdout)["fixing"] for done in (one, two)]
    assert found[0]["status"] == found[1]["status"]
    assert found[0]["kept"] == found[1]["kept"] != ""
    assert 0 == one.returncode == two.returncode
    told = [
        [(a["arm"], a["seed"], a["score"], a["chosen"]) for a in each["attempts"]]
        for each in found
    ]
    assert 9 == len(told[0])
    assert told[0] == told[1]
    weights = [load_file(place / f"{name}.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(w, weights[1][name]) for name, w in weights[0].items())
    assert not (place / "two.safetensors.run").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_keeps_what_is_finished_and_one_process_resumes(place: Path) -> None:
    port = ("--master-port", str(free_port()))
    with open(place / "out.json", "w") as out, open(place / "err", "w") as err:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--nproc-per-node", "2", *port, "-m", "vgaudit"),
                *words("two.safetensors", "--most-steps", "2000"),
            ],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    deadline = time.monotonic() + LIMIT
    while "training 3 of" not in (place / "err").read_text():
        assert process.poll() is None, (place / "err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=LIMIT)

    assert time.monotonic() - begun < 25, (place / "err").read_text()
    found = json.loads((place / "out.json").read_text())["fixing"]
    assert "interrupted" == found["status"]
    assert 2 <= len(found["attempts"]) < 9
    more = ("--most-steps", "2000", "--resume")
    done = shell(place, "-m", "vgaudit", *words("two.safetensors", *more))
    again = json.loads(done.stdout)["fixing"]
    assert found["attempts"] == again["attempts"][: len(found["attempts"])]
    assert 9 == len(again["attempts"])
    assert (place / "two.safetensors").exists()
