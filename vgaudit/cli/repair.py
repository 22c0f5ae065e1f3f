"""A repair in the worker: the job, what the user sees meanwhile, and the answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from vgaudit.cli import jobs
from vgaudit.cli.ending import GRACE, Ending
from vgaudit.cli.process import run
from vgaudit.cli.training import ended, folder_made
from vgaudit.cli.training_progress import Epochs
from vgaudit.errors import BadConfig
from vgaudit.fixing import Fixing, FixOptions
from vgaudit.plain import visible
from vgaudit.reports.fixing import parse

Given = Mapping[str, Any]

UNREPAIRED = 1
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def repaired(given: Given, typed: Sequence[str]) -> tuple[Fixing, int]:
    """Returns what was tried, and the exit code.

    0: healthy, repaired, or trained by a control that is better; 1: sick as before;
    130, 143, or 3 by the time limit: ended before its time.

    Raises:
        VgauditError: an option is wrong, or the repair failed.
    """
    given = {**given, "allow_nonfinite": False, "exit_zero": True, "unfreeze": False}
    with folder_made(given["run_folder"]):
        return _repaired(given, typed)


def _repaired(given: Given, typed: Sequence[str]) -> tuple[Fixing, int]:
    job = {
        "scan": jobs.scan_job(given),
        "options": options(given),
        "policy": jobs.policy(given, typed),
        "output": _text(given["out"]),
        "force": given["force"],
        "run_folder": _text(given["run_folder"]),
        "resume": given["resume"],
        "command": shlex.join(["vgaudit", *typed]),
    }
    with Epochs(silent=given["no_progress"], quiet=given["quiet"]) as view:
        ending = Ending("keeping what is finished", view.advance, grace=GRACE)
        answer = run("fix", job, limits=jobs.limits(given), watcher=view, ending=ending)
    done = parse(answer)
    if done.early:
        return done, ended(ending)
    return done, UNREPAIRED if done.status == "nothing" else 0


def options(given: Given) -> FixOptions:
    """Returns how to repair.

    Raises:
        BadConfig: the budget has no valid form.
    """
    return FixOptions(
        budget=seconds(given["budget"]),
        seeds=given["seeds"],
        trials=given["trials"],
        batch_size=given["batch_size"],
        valid_split=given["valid_split"],
        most_steps=given["most_steps"],
        seed=given["seed"],
        no_trial=given["no_trial"],
    )


def seconds(text: str) -> float:
    """Returns the seconds of ``90s``, ``10m``, ``1.5h``, or ``600``.

    Raises:
        BadConfig: it is no positive time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    value = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if value <= 0:
        raise BadConfig(
            f"--budget {visible(text)}: not a time",
            hint="seconds, or with s, m or h: --budget 10m",
        )
    return value


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
