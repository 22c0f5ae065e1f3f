"""An interrupted repair goes on where it was, to the same end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.fixing.models import Stop, fixed, sick, task
from tests.fixing.test_fixing_repair import RESCALED, only
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.fixing import Attempt, FixOptions
from vgaudit.repair.planning import planned

OPTIONS = FixOptions(budget=600.0, most_steps=60)


def told(attempts: tuple[Attempt, ...]) -> list[tuple[str, int, float, float, int]]:
    return [(a.arm, a.seed, a.score, a.chosen, a.steps) for a in attempts]


@pytest.fixture(autouse=True)
def one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, RESCALED)


def test_resumed_is_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = fixed(sick(6), task(600), OPTIONS)
    # A training asks after 56 steps and 8 laps, so 64 times: the fifth is cut.
    cut = fixed(sick(6), task(600), OPTIONS, folder=tmp_path / "run", stop=Stop(280))
    stop = Stop()
    again = fixed(
        sick(6), task(600), OPTIONS, folder=tmp_path / "run", resume=True, stop=stop
    )

    assert cut.fixing.status == "interrupted"
    assert "training 5 of 9" in cut.fixing.early
    assert len(cut.fixing.attempts) == 4
    assert told(again.fixing.attempts) == told(whole.fixing.attempts)
    assert (again.fixing.status, again.fixing.kept) == (
        whole.fixing.status,
        whole.fixing.kept,
    )
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])


def test_nothing_is_timed_or_planned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = fixed(sick(6), task(600), OPTIONS, folder=tmp_path, stop=Stop(70))

    def never(*_args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(
        f"{planned.__module__.replace('planning', 'series')}.planned", never
    )
    again = fixed(sick(6), task(600), OPTIONS, folder=tmp_path, resume=True)

    assert again.fixing.plan == cut.fixing.plan


def test_another_model_is_refused(tmp_path: Path) -> None:
    fixed(sick(6), task(600), OPTIONS, folder=tmp_path, stop=Stop(70))
    other = dataclasses.replace(OPTIONS, seeds=4)

    with pytest.raises(BadConfig, match="--seeds: 3 in the checkpoint, 4 now"):
        fixed(sick(6), task(600), other, folder=tmp_path, resume=True)


def test_other_data_of_the_same_name_and_size_are_refused(tmp_path: Path) -> None:
    x, y = task(600)
    fixed(sick(6), (x, y), OPTIONS, folder=tmp_path, stop=Stop(70))

    with pytest.raises(BadConfig, match="contents of the data"):
        fixed(sick(6), (-x, y), OPTIONS, folder=tmp_path, resume=True)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    fixed(sick(6), task(600), OPTIONS, folder=tmp_path, stop=Stop(70))
    path = tmp_path / "fix.json"
    assert json.loads(path.read_text())["schema"] == 3
    path.write_text(path.read_text()[:-40])

    with pytest.raises(CannotLoad, match="damaged"):
        fixed(sick(6), task(600), OPTIONS, folder=tmp_path, resume=True)
