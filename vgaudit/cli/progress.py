"""What the user sees on standard error while the worker works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from vgaudit.plain import visible

if TYPE_CHECKING:
    from rich.status import Status


class Phases:
    """Shows phases as a spinner on a terminal, as one line each elsewhere.

    A context manager: the spinner is gone when it is left.

    Args:
        silent: show no phases.
        quiet: nor what the model's own code writes.
    """

    def __init__(self, *, silent: bool, quiet: bool) -> None:
        self._silent = silent or quiet
        self._quiet = quiet
        self._spinner: Status | None = None

    def __enter__(self) -> Self:
        if not self._silent and sys.stderr.isatty():
            from rich.console import Console

            console = Console(stderr=True, markup=False, highlight=False, emoji=False)
            self._spinner = console.status("starting", spinner="dots")
            self._spinner.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def phase(self, name: str) -> None:
        """Begins a phase."""
        if self._spinner is not None:
            from rich.text import Text

            self._spinner.update(Text(visible(name)))
        elif not self._silent:
            sys.stderr.write(f"vgaudit: {visible(name)}\n")
            sys.stderr.flush()

    def note(self, line: str) -> None:
        """Shows a line that the model's own code wrote."""
        if self._quiet:
            return
        if self._spinner is not None:
            self._spinner.console.print(line, soft_wrap=True)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
