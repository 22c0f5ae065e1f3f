"""Killed at any moment, a run leaves the old model or the new one, never another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import vgaudit
from tests.trust import seeds
from vgaudit.training.output import write
from vgaudit.treatments import Origin, save
from vgaudit.treatments.recipe import beside, parse

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")

# The child says when each saving begins, so that the parent's moments, drawn evenly
# over the time that one takes, fall into every part of it.
SAVING = """
import sys, time
sys.path.insert(0, {root!r})
import torch, vgaudit
from tests.trust import seeds
torch.set_num_threads(1)
made = [
    vgaudit.convert(seeds.net(), to="ar", limit=limit, data=torch.randn(32, 3),
                    compare=False).model
    for limit in (2.0, 7.0)
]
folder = {folder!r}
for index, model in enumerate(made):
    vgaudit.save(model, folder + f"/wanted{{index}}.safetensors", force=True)
vgaudit.save(made[0], folder + "/out.safetensors", force=True)
started = time.perf_counter()
vgaudit.save(made[0], folder + "/out.safetensors", force=True)
print(time.perf_counter() - started, flush=True)
for line in sys.stdin:
    vgaudit.save(made[int(line)], folder + "/out.safetensors", force=True)
    print("saved", flush=True)
"""


def child(folder: Path) -> tuple[subprocess.Popen[str], float]:
    script = SAVING.format(root=str(ROOT), folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, float(process.stdout.readline())


def tell(process: subprocess.Popen[str], index: int) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{index}\n")
    process.stdin.flush()


def weights(path: Path) -> torch.Tensor:
    model = vgaudit.load(path, arch=seeds.net)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@posix
@pytest.mark.slow
def test_a_saving_that_is_killed_leaves_one_of_the_two(tmp_path: Path) -> None:
    """Fifty moments over one saving, each in a process of its own."""
    moments = np.linspace(0.0, 1.1, 50)
    rng = np.random.default_rng(0)
    seen: set[int] = set()
    for number, moment in enumerate(rng.permutation(moments)):
        process, takes = child(tmp_path)
        old, new = number % 2, 1 - number % 2
        tell(process, old)
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        tell(process, new)
        time.sleep(moment * takes)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = weights(tmp_path / "out.safetensors")
        wanted = [weights(tmp_path / f"wanted{index}.safetensors") for index in (0, 1)]
        matches = [index for index in (0, 1) if torch.equal(found, wanted[index])]
        assert matches
        seen.add(matches[0] == new)
    assert seen == {False, True}, "every kill came before, or every kill came after"


@pytest.mark.parametrize("stop", range(1, 9))
def test_between_any_two_steps_of_a_saving(stop: int, tmp_path, monkeypatch) -> None:
    """The same, at every replacement and sync, one after the other."""
    torch.manual_seed(0)
    data = torch.randn(32, 3)
    old, new = (
        vgaudit.convert(
            seeds.net(), to="ar", limit=limit, data=data, compare=False
        ).model
        for limit in (2.0, 7.0)
    )
    path = tmp_path / "out.safetensors"
    vgaudit.save(old, path)
    vgaudit.save(new, tmp_path / "new.safetensors")
    before, after = weights(path), weights(tmp_path / "new.safetensors")
    monkeypatch.setattr("vgaudit.treatments.writing.os", Dying(stop))

    try:
        vgaudit.save(new, path, force=True)
    except Killed:
        monkeypatch.undo()
        found = weights(path)
        assert torch.equal(found, before) or torch.equal(found, after)
        vgaudit.save(new, path, force=True)
    monkeypatch.undo()
    assert torch.equal(weights(path), after)


def test_what_is_trained_after_a_kill_says_what_was_converted(
    tmp_path, monkeypatch
) -> None:
    """Killed between recipe and weights, the old weights keep the old edits."""
    torch.manual_seed(0)
    data = torch.randn(32, 3)
    old, new = (
        vgaudit.convert(seeds.net(), to="ar", limit=limit, data=data, compare=False)
        for limit in (2.0, 7.0)
    )
    path, later = tmp_path / "out.safetensors", tmp_path / "later.safetensors"
    save(old.model, path, origin=Origin(edits=old.edits))
    with monkeypatch.context() as patched:
        patched.setattr("vgaudit.treatments.writing.os", Dying(3))
        with pytest.raises(Killed):
            save(new.model, path, origin=Origin(edits=new.edits), force=True)
    assert parse(beside(path)).previous is not None

    model = vgaudit.load(path, arch=seeds.net)
    write(model, later, origin=Origin(spec=str(path)), force=False)

    changes = [edit.change for edit in parse(beside(later)).edits]
    assert changes == [edit.change for edit in old.edits]
    assert changes != [edit.change for edit in new.edits]


class Killed(BaseException):
    """The process is gone."""


class Dying:
    """The module os, until so many syncs and replacements were done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __getattr__(self, name: str) -> object:
        if name in ("fsync", "replace"):
            self.left -= 1
            if self.left == 0:
                raise Killed
        return getattr(os, name)


def test_a_recipe_without_weights_is_in_nobody_s_way(tmp_path: Path) -> None:
    seeds.recipe_json(str(tmp_path))
    (tmp_path / "out.safetensors").unlink()
    model = vgaudit.convert(
        seeds.net(), to="ar", data=torch.randn(32, 3), compare=False
    ).model

    vgaudit.save(model, tmp_path / "out.safetensors")

    assert weights(tmp_path / "out.safetensors").numel()
