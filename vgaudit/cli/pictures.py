"""``--png FOLDER``: the charts of a report as files, where matplotlib is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from vgaudit.cli import ranked
from vgaudit.errors import BadConfig, CannotWrite
from vgaudit.findings import Report
from vgaudit.plain import visible

Png = Annotated[
    Path | None,
    typer.Option(
        "--png",
        help="Write the charts as PNG files to a folder; needs the extra plots.",
        metavar="FOLDER",
        rich_help_panel="Output",
    ),
]


def check(folder: Path | None) -> None:
    """Refuses a folder that is none, and a system without matplotlib, before any work.

    Raises:
        BadConfig: matplotlib is not installed.
        CannotWrite: there is no such folder.
    """
    if folder is None or not ranked.writes():
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise BadConfig(
            "--png needs matplotlib, which is not installed",
            hint="python -m pip install 'vgaudit[plots]'",
        )
    if not folder.is_dir():
        raise CannotWrite(
            f"{visible(str(folder))} is no folder", hint="create it first"
        )


def save(folder: Path | None, report: Report, *, force: bool) -> tuple[Path, ...]:
    """Writes the charts of a report, and returns their files.

    Raises:
        CannotWrite: a file exists already, or the system refuses.
    """
    if folder is None or not ranked.writes():
        return ()
    from vgaudit.reports.png import pictures

    found = {folder / f"{name}.png": data for name, data in pictures(report).items()}
    taken = next((path for path in found if path.exists()), None)
    if taken is not None and not force:
        raise CannotWrite(
            f"{visible(str(taken))} exists already", hint="--force replaces it"
        )
    for path, data in found.items():
        _write(path, data)
    return tuple(found)


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CannotWrite(
            f"{visible(str(path))} cannot be written: {error.strerror or error}",
            hint="free some space or choose another folder",
        ) from error
