"""A training in the worker: the job, what the user sees meanwhile, and the answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vgaudit.cli import jobs, ranked
from vgaudit.cli.options import FailOn
from vgaudit.cli.process import Ending, run
from vgaudit.cli.training_progress import Epochs
from vgaudit.compare import Comparison, compare
from vgaudit.errors import BadConfig, CannotWrite
from vgaudit.judge import judge
from vgaudit.plain import visible
from vgaudit.reports.retraining import parse
from vgaudit.retraining import Retraining, RetrainOptions

Given = Mapping[str, Any]

TERMINATED = 143
"""Where somebody else than this process's user ended the worker."""


def trained(given: Given, typed: Sequence[str]) -> tuple[Retraining, int]:
    """Returns what was trained, and the exit code: 130 or 143 where it was ended.

    Raises:
        VgauditError: an option is wrong, or the training failed.
    """
    given = _completed(given)
    jobs.policy(given, typed)
    job = {
        "scan": jobs.scan_job(given),
        "options": options(given),
        "output": _text(given["out"]),
        "force": given["force"],
        "run_folder": _text(folder_made(given["run_folder"])),
        "resume": given["resume"],
        "checkpoint_every": given["checkpoint_every"],
        "command": shlex.join(["vgaudit", *typed]),
    }
    with Epochs(silent=given["no_progress"], quiet=given["quiet"]) as view:
        ending = Ending("finishing the step and saving", view.advance)
        answer = run(
            "retrain", job, limits=jobs.limits(given), watcher=view, ending=ending
        )
    done = parse(answer)
    return done, ended(ending) if done.early else 0


def ended(ending: Ending) -> int:
    """Returns the exit code of a task that ended early.

    Where another rank than this one was asked to end, the first one says so for all.
    """
    return ending.status or (TERMINATED if ranked.writes() else 0)


def compared(done: Retraining, given: Given, typed: Sequence[str]) -> Comparison | None:
    """Returns the scans before and after side by side; None without both."""
    if done.before is None or done.after is None:
        return None
    policy = jobs.policy(_completed(given), typed)
    return compare(judge(done.before, policy), judge(done.after, policy))


def options(given: Given) -> RetrainOptions:
    """Returns how to train.

    Raises:
        BadConfig: a setting has no valid form.
    """

    def chosen(name: str) -> Any:
        return getattr(given[name], "value", given[name])

    return RetrainOptions(
        method=chosen("with_"),
        solver=chosen("solver"),
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        accumulate=given["accumulate"],
        lr=given["lr"],
        weight_decay=given["weight_decay"],
        momentum=given["momentum"],
        schedule=chosen("schedule"),
        warmup=given["warmup"],
        clip=given["clip"],
        amp=chosen("amp"),
        valid_split=given["valid_split"],
        valid_data=given["valid_data"],
        patience=given["patience"],
        controls=tuple(given["control"] or ()),
        seed=given["seed"],
        settings=_settings(given["setting"] or ()),
        parallel=chosen("parallel"),
    )


def _settings(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise BadConfig(
                f"--setting {visible(text)}: not of the form NAME=VALUE",
                hint="for example --setting kappa=100",
            )
        found[name] = value
    return found


def _completed(given: Given) -> dict[str, Any]:
    """Returns the parameters with those that a scan has and a training has not."""
    return {
        **given,
        "allow_nonfinite": False,
        "exit_zero": True,
        "fail_on": FailOn.error,
        "unfreeze": False,
    }


def folder_made(path: Path | None) -> Path | None:
    """Makes the folder of checkpoints: the worker may write only to what is there.

    Raises:
        CannotWrite: it cannot be made.
    """
    if path is not None:
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise CannotWrite(
                f"--run-folder {visible(str(path))}: {error.strerror or error}",
                hint="give a folder, or a new name in one",
            ) from error
    return path


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
