"""Where comparisons, conversions and trainings go: text, JSON and HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgaudit.cli.delivery import hand_out
from vgaudit.cli.output import destinations, renderer, show, wrote
from vgaudit.errors import BadConfig
from vgaudit.plain import visible
from vgaudit.reports import REPORTS

FORMS = ("text", "json", "html")
"""The other formats know findings of one scan, and no change."""


@dataclass(frozen=True, slots=True)
class Changes:
    """All that a command about a change writes.

    Attributes:
        form: the format of standard output.
        files: format and path of each ``--report``.
        quiet: no text on standard output.
    """

    form: str
    files: tuple[tuple[str, Path], ...]
    quiet: bool = False

    @classmethod
    def chosen(
        cls, given: Mapping[str, Any], *, inputs: Sequence[str | None]
    ) -> Changes:
        """Returns what the options of a command ask for.

        Args:
            given: the parameters of the command by name.
            inputs: files that may not be written over.

        Raises:
            BadConfig: a format is unknown, or cannot show a change.
            CannotWrite: a file could not be written.
        """
        require_change(given["format"])
        files = destinations(
            given["report"] or (),
            inputs=inputs,
            force=given["force"],
            check=require_change,
        )
        return cls(given["format"], files, quiet=bool(given.get("quiet")))

    def deliver(
        self, render: Callable[[str], str], *, written: Sequence[str] = ()
    ) -> None:
        """Writes the change to every place.

        Args:
            render: returns it in a format.
            written: files that the command has written before.

        Raises:
            CannotWrite: a file cannot be written; all the rest was.
        """
        hand_out(
            (partial(wrote, path, partial(render, form)) for form, path in self.files),
            lambda: self._show(render),
            written=written,
        )

    def _show(self, render: Callable[[str], str]) -> None:
        if self.form != "text" or not self.quiet:
            show(render(self.form))


def require_change(form: str) -> None:
    """Makes sure that a format can show a change.

    Raises:
        BadConfig: it is unknown, or shows one scan alone.
    """
    if form in REPORTS and form not in FORMS:
        raise BadConfig(
            f"the format {visible(form)} shows one scan, and no change",
            hint=f"one of {', '.join(FORMS)}",
        )
    renderer(form, FORMS)
