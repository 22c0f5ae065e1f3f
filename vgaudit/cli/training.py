"""A training in the worker: the job, what the user sees meanwhile, and the answer."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgaudit.cli import jobs, ranked
from vgaudit.cli.ending import GRACE, Ending
from vgaudit.cli.options import FailOn
from vgaudit.cli.process import WorkerBug, run
from vgaudit.cli.training_progress import Epochs
from vgaudit.compare import Comparison, compare
from vgaudit.errors import BadConfig, CannotRewrite, CannotRun, CannotWrite
from vgaudit.judge import judge
from vgaudit.plain import visible
from vgaudit.reports.retraining import parse
from vgaudit.retraining import Retraining, RetrainOptions, is_given, run_folder

Given = Mapping[str, Any]

TERMINATED = 143
"""Where somebody else than this process's user ended the worker."""


def trained(given: Given, typed: Sequence[str]) -> tuple[Retraining, int]:
    """Returns what was trained, and the exit code: that of what ended it early.

    130 or 143 for a signal, 3 for the time limit.

    Raises:
        VgauditError: an option is wrong, or the training failed.
    """
    with folder_made(given["run_folder"]):
        return _trained(_completed(given), typed)


def _trained(given: Given, typed: Sequence[str]) -> tuple[Retraining, int]:
    jobs.policy(given, typed)
    jobs.check_seconds("checkpoint-every", given["checkpoint_every"])
    job = {
        "scan": jobs.scan_job(given),
        "options": options(given),
        "output": _text(given["out"]),
        "force": given["force"],
        "run_folder": _text(given["run_folder"]),
        "resume": given["resume"],
        "checkpoint_every": given["checkpoint_every"],
        "command": shlex.join(["vgaudit", *typed]),
    }
    with Epochs(silent=given["no_progress"], quiet=given["quiet"]) as view:
        words = "finishing the step and saving"
        ending = Ending(words, view.advance, grace=GRACE)
        with _way_on(given, typed):
            answer = run(
                "retrain", job, limits=jobs.limits(given), watcher=view, ending=ending
            )
    done = parse(answer)
    return done, ended(ending) if done.early else 0


@contextlib.contextmanager
def _way_on(given: Given, typed: Sequence[str]) -> Iterator[None]:
    """Adds to what failed how to go on from the checkpoint, where there is one.

    By the parent, so that a worker which was killed or crashed leaves that word too.
    """
    try:
        yield
    except (CannotRun, CannotWrite, CannotRewrite) as error:
        way = _kept(given, typed)
        error.hint = "; ".join(filter(None, (error.hint or error.way_out, way)))
        raise
    except WorkerBug as bug:
        if way := _kept(given, typed):
            raise WorkerBug(f"{bug}; {way}", bug.details) from bug
        raise


def _kept(given: Given, typed: Sequence[str]) -> str:
    """Returns how to continue from what a failed training has left, or nothing."""
    folder = run_folder(given["out"], given["run_folder"])
    saved = () if folder is None else folder.glob("checkpoint*.pt")
    if not any(path.is_file() for path in saved):
        return ""
    shown = visible(str(folder))
    return f"what was trained is kept in {shown}; to go on: {again(typed)}"


def again(typed: Sequence[str], *, reported: bool = False) -> str:
    """Returns the command that continues this training.

    Args:
        typed: the words after ``vgaudit``.
        reported: an interrupted training has written the reports that are asked for;
            the next one replaces them.
    """
    words = [*typed]
    asked = any(word.partition("=")[0] == "--report" for word in typed)
    for word in ("--resume", "--force") if reported and asked else ("--resume",):
        if word not in typed:
            words.append(word)
    return shlex.join(["vgaudit", *words])


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


@contextlib.contextmanager
def folder_made(path: Path | None) -> Iterator[None]:
    """Makes the folder of checkpoints, and removes it in the end if it is empty.

    The worker may write only to what is there, and may not remove the folder itself. An
    empty one that was there before stays.

    Raises:
        CannotWrite: it cannot be made.
    """
    if path is None:
        yield
        return
    try:
        stays = is_given(path)
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotWrite(
            f"--run-folder {visible(str(path))}: {error.strerror or error}",
            hint="give a folder, or a new name in one",
        ) from error
    try:
        yield
    finally:
        if not stays:
            with contextlib.suppress(OSError):
                path.rmdir()


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
