"""Where reports go: standard output, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgaudit.cli import ranked
from vgaudit.cli.delivery import Step, abandon, hand_out, unwritable, with_report
from vgaudit.errors import BadConfig, CannotLoad, CannotWrite, VgauditError
from vgaudit.findings import Report
from vgaudit.plain import nearest, visible
from vgaudit.reports import REPORTS, Render
from vgaudit.reports.look import BLOCKS, Look, ascii_only

MOST_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Outputs:
    """All that one command writes.

    Attributes:
        form: the format of standard output.
        files: format and path of each ``--report``.
        look: how text looks on standard output.
        quiet: nothing but JSON or another file format on standard output.
        summary: append Markdown to the step summary of a CI run, where there is one.
    """

    form: str
    files: tuple[tuple[str, Path], ...]
    look: Look
    quiet: bool = False
    summary: bool = False

    @classmethod
    def chosen(
        cls, given: Mapping[str, Any], *, inputs: Sequence[str | None]
    ) -> Outputs:
        """Returns what the options of a command ask for.

        Args:
            given: the parameters of the command by name.
            inputs: model and data, none of which may be written over.

        Raises:
            BadConfig: a format is unknown.
            CannotWrite: a file could not be written.
        """
        renderer(given["format"])
        writes = ranked.writes()
        return cls(
            form=given["format"],
            files=destinations(
                (given["report"] or ()) if writes else (),
                inputs=inputs,
                force=given["force"],
            ),
            look=look(top=given["top"], verbose=given["verbose"]),
            quiet=given["quiet"],
            summary=writes,
        )

    def deliver(self, report: Report, *more: Step) -> int:
        """Writes the report to every place and returns the exit code.

        Args:
            report: as it was judged.
            more: what else is written of it.

        Raises:
            CannotWrite: a file cannot be written; all the rest was.
        """
        hand_out((*more, *self._steps(report)), lambda: self._show(report))
        return report.exit_code

    def failed(self, error: VgauditError, report: Report) -> VgauditError:
        """Returns the error that ends a command, once its report is in the files."""
        return with_report(error, self._steps(report))

    def _steps(self, report: Report) -> Iterator[Step]:
        """Yields what writes the report to each file."""
        for form, path in self.files:
            yield partial(wrote, path, partial(REPORTS[form], report))

    def _show(self, report: Report) -> None:
        if self.summary:
            summarize(lambda: REPORTS["markdown"](report))
        if self.form != "text":
            show(REPORTS[self.form](report))
        elif not self.quiet:
            from vgaudit.reports.text import render

            show(render(report, self.look))


def renderer(name: str, known: Collection[str] = tuple(REPORTS)) -> Render:
    """Returns the renderer of a format.

    Args:
        name: as it was typed.
        known: the formats that the command has, which a refusal names.

    Raises:
        BadConfig: there is no such format.
    """
    if name not in known:
        raise BadConfig(
            f"unknown report format '{visible(name)}'",
            hint=f"{nearest(name, known)}known: {', '.join(known)}",
        )
    return REPORTS[name]


def destinations(
    texts: Iterable[str],
    *,
    inputs: Sequence[str | None],
    force: bool,
    check: Callable[[str], object] = renderer,
) -> tuple[tuple[str, Path], ...]:
    """Returns format and path of each ``FORMAT=PATH``, known to be writable so far.

    Args:
        texts: what ``--report`` was given.
        inputs: model and data, none of which may be written over.
        force: replace files that exist.
        check: refuses a format that the command has not.

    Raises:
        BadConfig: a text has another form or names no format.
        CannotWrite: a path is an input, exists, or has no folder.
    """
    found = []
    for text in texts:
        form, separator, name = text.partition("=")
        if not separator or not name:
            raise BadConfig(
                f"--report {visible(text)}: not of the form FORMAT=PATH",
                hint="for example --report json=report.json",
            )
        check(form)
        path = Path(name)
        check_writable(path, inputs=inputs, force=force)
        found.append((form, path))
    return tuple(found)


def check_model(
    path: Path | None, *, inputs: Sequence[str | None], force: bool, weights: str
) -> None:
    """Refuses a place for a model that cannot be written, before any work.

    Args:
        path: as it was typed; None where no model is written.
        inputs: what the command reads.
        force: files that exist may be replaced.
        weights: what is written to a ``.safetensors``, in words.

    Raises:
        BadConfig: the name says no format.
        CannotWrite: as ``check_writable``, of the file or of the recipe beside it.
    """
    if path is None:
        return
    if path.suffix not in (".safetensors", ".pt"):
        raise BadConfig(
            f"-o {visible(str(path))}: the name must end in .safetensors or .pt",
            hint=f"{weights}, or the whole module by pickle",
        )
    check_writable(path, inputs=inputs, force=force)
    if path.suffix == ".safetensors":
        recipe = path.with_name(f"{path.stem}.recipe.json")
        check_writable(recipe, inputs=inputs, force=force)


def check_writable(path: Path, *, inputs: Sequence[str | None], force: bool) -> None:
    """Refuses a path that is an input, exists already, or lies in no folder.

    Raises:
        CannotWrite: with the reason and the way out.
    """
    shown = visible(str(path))
    if any(_same(path, item.partition("#")[0]) for item in inputs if item):
        raise CannotWrite(
            f"{shown} is an input of this command",
            hint="choose another name; inputs are never written over",
        )
    if path.is_dir():
        raise CannotWrite(f"{shown} is a folder", hint="give the name of a file")
    if path.exists() and not force:
        raise CannotWrite(f"{shown} exists already", hint="--force replaces it")
    if not path.parent.is_dir():
        raise CannotWrite(
            f"{visible(str(path.parent))} is no folder", hint="create it first"
        )
    if not os.access(path.parent, os.W_OK):
        raise CannotWrite(
            f"{visible(str(path.parent))} cannot be written to",
            hint="choose a folder that can",
        )


def read(path: Path) -> str:
    """Returns the text of a report file.

    Raises:
        CannotLoad: it is no file, larger than any report, or no text.
    """
    shown = visible(str(path))
    hint = "give a file written by --report json=PATH"
    if not path.is_file():
        raise CannotLoad(f"no such file: {shown}", hint=hint)
    if path.stat().st_size > MOST_BYTES:
        raise CannotLoad(f"{shown} is larger than any report", hint=hint)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotLoad(
            f"{shown} cannot be read as text: {error}", hint=hint
        ) from error


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all: beside it first, then in its place.

    Raises:
        CannotWrite: the system refuses; the old file, if any, is untouched.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise CannotWrite(
            f"{visible(str(path))} cannot be written: {error.strerror or error}",
            hint="free some space or choose another folder",
        ) from error


def wrote(path: Path, render: Callable[[], str]) -> tuple[Path]:
    """Writes what ``render`` returns, and returns the file.

    Raises:
        CannotWrite: as ``write``.
    """
    write(path, render())
    return (path,)


def summarize(markdown: Callable[[], str]) -> None:
    """Appends Markdown to the step summary of GitHub Actions, where there is one.

    A summary that cannot be written is said, and changes no verdict.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{markdown()}\n")
    except OSError as error:
        why = error.strerror or error
        sys.stderr.write(f"vgaudit: no step summary: {visible(str(why))}\n")


def show(text: str) -> None:
    """Writes a report to standard output, in ASCII where it can show no more.

    Raises:
        BrokenPipeError: nobody reads it any more.
        CannotWrite: it takes no more, as a file on a full disk.
    """
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = ascii_only(text)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon()
        raise unwritable(error) from error


def look(*, top: int, verbose: bool) -> Look:
    """Returns what standard output can show."""
    terminal = sys.stdout.isatty()
    return Look(
        width=min(_columns(), 120) if terminal else 80,
        color=terminal and not os.environ.get("NO_COLOR"),
        unicode=_shows(BLOCKS + "…−·→"),
        top=top,
        verbose=verbose,
    )


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _shows(marks: str) -> bool:
    try:
        marks.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _same(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def _mode(path: Path) -> int:
    """Returns the mode of the file that is replaced, or what the umask leaves."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
