"""What the user sees on standard error while a model trains."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vgaudit.cli.progress import Phases
from vgaudit.plain import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Epochs(Phases):
    """Shows a bar with loss, metric, attenuation and time left; else a line an epoch.

    Args:
        silent: show nothing.
        quiet: nor what the model's own code writes.
    """

    def __init__(self, *, silent: bool, quiet: bool) -> None:
        super().__init__(silent=silent, quiet=quiet)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last: tuple[str, int] = ("", 0)

    def __exit__(self, *unused: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        super().__exit__()

    def phase(self, name: str) -> None:
        """Begins a phase; the bar gives way."""
        self._close_bar()
        super().phase(name)

    def note(self, line: str) -> None:
        """Shows a line that the model's own code wrote, above the bar."""
        if self._bar is not None and not self._quiet:
            self._bar.console.print(line, soft_wrap=True)
        else:
            super().note(line)

    def advance(self, record: dict[str, Any]) -> None:
        """Shows how far a training is."""
        if self._silent:
            return
        if sys.stderr.isatty():
            self._draw(record)
            return
        place = (record["run"], record["finished"])
        if record["finished"] and place != self._last:
            sys.stderr.write(
                f"vgaudit: {visible(record['run'])} epoch {record['finished']} of "
                f"{record['epochs']}: {figures(record)}\n"
            )
            sys.stderr.flush()
        self._last = place

    def _draw(self, record: dict[str, Any]) -> None:
        from rich.text import Text

        if self._bar is None:
            self._open_bar()
        assert self._bar is not None
        if self._task is None or record["run"] != self._last[0]:
            self._task = self._bar.add_task("", total=record["steps"], figures=Text())
        epoch = f"{visible(record['run'])} {record['epoch']}/{record['epochs']}"
        self._bar.update(
            self._task,
            completed=record["step"],
            description=epoch,
            figures=Text(figures(record)),
        )
        self._last = (record["run"], record["finished"])

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        if self._spinner is not None:
            self._spinner.stop()
        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column()),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._bar.start()

    def _close_bar(self) -> None:
        if self._bar is None:
            return
        self._bar.stop()
        self._bar = self._task = None
        if self._spinner is not None:
            self._spinner.start()


def figures(record: dict[str, Any]) -> str:
    """Returns loss, metric, attenuation and time left of a training, in words."""
    measure = record.get("measure") or "metric"
    share = "{:.1%}" if measure == "accuracy" else "{:.4f}"
    parts = []
    for name, form in (
        ("loss", "loss {:.4g}"),
        ("metric", f"{measure} {share}"),
        ("attenuation", "attenuation {:.1f}"),
    ):
        value = record.get(name)
        if isinstance(value, (int, float)):
            text = form.format(value).replace("-", "−")
            parts.append(text.replace("%", " %"))
    return ", ".join(parts) or "no figures yet"
