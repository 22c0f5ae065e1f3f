"""From an exception to what the user reads, and the status of the process."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import tempfile
import traceback
from itertools import pairwise

import typer

from vgaudit.cli.delivery import FULL, PartlyWritten, abandon, unwritable
from vgaudit.errors import BadConfig, VgauditError
from vgaudit.plain import nearest, visible

INTERNAL = 70


class InternalError(VgauditError):
    """A bug in vgaudit, as the user is told of it."""

    exit_code = INTERNAL


def explain(error: Exception, typed: list[str]) -> int:
    """Says on standard error what went wrong and what to do.

    Where JSON was asked for, standard output gets the same as a document.

    Returns:
        The exit code.
    """
    told = error if isinstance(error, VgauditError) else _usage(error)
    told = told or _unwritable(error)
    if told is None:
        told = _bug(error, typed)
    internal = isinstance(told, InternalError)
    _say("internal error: " if internal else "error: ", told.message)
    _say("help: ", told.hint or told.way_out)
    if "--debug" in typed:
        sys.stderr.write(_details(error))
    if _wants_json(typed) and not isinstance(told, PartlyWritten):
        _write_document(told, typed)
    return told.exit_code


def _usage(error: Exception) -> VgauditError | None:
    """Returns typer's own usage errors as ours; None for every other exception.

    They are told by what they can do: typer carries click's exceptions within, or
    imports them from click, depending on its version.
    """
    words = getattr(error, "format_message", None)
    if words is None or not hasattr(error, "exit_code"):
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "vgaudit"
    # Typer reads choices by pydantic, whose messages say which exception it caught.
    message = str(words()).replace(": Value error, ", ": ", 1)
    return BadConfig(message, hint=f"{_guess(message)}see `{command} --help`")


def _unwritable(error: Exception) -> VgauditError | None:
    """Returns what is told where typer's own words, as of --help, find no place."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        abandon()
        return unwritable(error)
    return None


def _guess(message: str) -> str:
    """Returns ``did you mean X? `` for a word that is none of the choices."""
    found = re.search(r"'([^']+)' is not one of ('.+')", message)
    return nearest(found[1], re.findall(r"'([^']+)'", found[2])) if found else ""


def _bug(error: Exception, typed: list[str]) -> InternalError:
    inside_worker = hasattr(error, "details")
    message = str(error) if inside_worker else f"{type(error).__name__}: {error}"
    where = _bug_report(error, typed)
    hint = f"this is a bug in vgaudit; please report it with {where}"
    return InternalError(message, hint=hint)


def _bug_report(error: Exception, typed: list[str]) -> str:
    """Writes what a bug report needs, and returns where."""
    lines = [
        f"Python {platform.python_version()} on {platform.platform()}",
        f"command: {shlex.join(['vgaudit', *typed])}",
        "",
        _details(error),
    ]
    try:
        handle, path = tempfile.mkstemp(prefix="vgaudit-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as out:
            out.write("\n".join(lines))
    except OSError:
        return "the output of --debug"
    return path


def _details(error: BaseException) -> str:
    """Returns the traceback, and the worker's where there is one."""
    text = "".join(traceback.format_exception(error))
    return text + str(getattr(error, "details", ""))


def _say(label: str, text: str) -> None:
    typer.secho(label, fg="red", bold=True, nl=False, err=True)
    typer.echo(visible(text, length=2000), err=True)


def _wants_json(typed: list[str]) -> bool:
    pairs = [("--format", "json")]
    if typed[:1] == ["report"]:
        pairs.append(("--to", "json"))
    return any(f"{a}={b}" in typed or (a, b) in pairwise(typed) for a, b in pairs)


def _write_document(error: VgauditError, typed: list[str]) -> None:
    from vgaudit.judge import Policy, failed
    from vgaudit.reports import json

    policy = Policy(command=shlex.join(["vgaudit", *typed]))
    sys.stdout.write(json.render(failed(error, policy)))
