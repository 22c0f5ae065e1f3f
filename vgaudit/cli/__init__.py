"""The command line: parse, run the worker, judge, write, exit. Nothing else.

``main`` is the one place where errors become words on standard error and a status
of the process. This side of the command line never imports torch.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from vgaudit.cli import ranked
from vgaudit.cli.delivery import abandon
from vgaudit.errors import CannotWrite

__all__ = ["main"]

INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: what was typed after ``vgaudit``; the process's own by default.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    _stop_on_signals()
    part = ranked.taken(typed)
    try:
        status = _run(typed or ["--help"]) if part.works else 0
        sys.stdout.flush()
    except BrokenPipeError:
        abandon()  # nobody reads on
        status = PIPE_CLOSED
    except OSError:
        abandon()  # and there is no place left to say so
        status = CannotWrite.exit_code
    part.leave(status)
    sys.exit(status)


def _run(typed: list[str]) -> int:
    from vgaudit.cli import boundary
    from vgaudit.cli.app import app

    try:
        status = app(
            _spelled_out(typed), prog_name="vgaudit", standalone_mode=False, obj=typed
        )
        return int(status or 0)
    except SystemExit as stop:
        # Typer says 1 when a pipe closes while anything inside a command writes.
        return PIPE_CLOSED if stop.code == 1 else int(stop.code or 0)
    except Exception as error:
        return boundary.explain(error, typed)


def _spelled_out(typed: list[str]) -> list[str]:
    """Gives ``--trust-pickle`` its value: it takes one only behind an equals sign."""
    bare = "--trust-pickle"
    return [f"{bare}=yes" if word == bare else word for word in typed]


def _stop_on_signals() -> None:
    def stop(number: int, _frame: object) -> NoReturn:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        interrupted = number == signal.SIGINT
        sys.stderr.write("interrupted\n" if interrupted else "terminated\n")
        sys.exit(INTERRUPTED if interrupted else TERMINATED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
