"""Several reports at once: into one document, or into a file for each target."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vgaudit.cli.delivery import hand_out
from vgaudit.cli.output import Outputs, check_writable, read, show, summarize, wrote
from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.plain import visible
from vgaudit.reports import REPORTS, SUITES
from vgaudit.reports.suites import parse_suite, render_suite_text
from vgaudit.reports.text import render as render_text
from vgaudit.suite import Suite

EACH = "{target}"
_UNSAFE = re.compile(r"[^\w.-]+")


def opened(files: Sequence[Path], *, name: str | None = None) -> Suite:
    """Returns the reports in one or more files.

    Args:
        files: reports of ``scan`` and of ``check``.
        name: of the target, for a single report.

    Raises:
        CannotLoad: a file is no report.
        BadConfig: two reports are on targets of one name.
    """
    entries = [entry for file in files for entry in parse_suite(read(file)).entries]
    if name is not None and len(entries) == 1:
        entries = [replace(entries[0], name=name)]
    names = [entry.name for entry in entries]
    twice = next((x for x in names if names.count(x) > 1), None)
    if twice is not None:
        raise BadConfig(
            f"two reports on '{visible(twice)}'",
            hint="give one report on each target",
        )
    return Suite(entries=tuple(entries))


def prepared(outputs: Outputs, names: Sequence[str], *, force: bool) -> Outputs:
    """Returns outputs with absolute paths, known to fit the targets.

    Raises:
        BadConfig: a format shows one model, and there are several.
        CannotWrite: a file cannot be written.
    """
    for form, path in [(outputs.form, None), *outputs.files]:
        if form in SUITES or len(names) == 1 or (path and EACH in path.name):
            continue
        raise BadConfig(
            f"{form} shows one model, and there are {len(names)} targets",
            hint=f"--report {form}=report-{EACH}.{form} writes one for each",
        )
    files = tuple((form, path.absolute()) for form, path in outputs.files)
    for _, path in files:
        for each in _expanded(path, names):
            check_writable(each, inputs=(), force=force)
    return replace(outputs, files=files)


def deliver(outputs: Outputs, suite: Suite, *, plain: bool = False) -> int:
    """Writes the reports to every place and returns the exit code of all.

    Args:
        outputs: where to.
        suite: what.
        plain: a single report is shown as itself, and not as a list of one.

    Raises:
        CannotWrite: a file cannot be written; all the rest was.
    """
    alone = suite.entries[0].report if plain and len(suite.entries) == 1 else None
    steps = (
        partial(wrote, file, render)
        for form, path in outputs.files
        for file, render in _documents(form, path, suite, alone)
    )
    hand_out(steps, lambda: _show(outputs, suite, alone))
    return suite.exit_code


def _show(outputs: Outputs, suite: Suite, alone: Report | None) -> None:
    if outputs.summary:
        summarize(lambda: _rendered("markdown", suite, alone))
    if outputs.form != "text":
        show(_rendered(outputs.form, suite, alone))
    elif not outputs.quiet and alone is not None:
        show(render_text(alone, outputs.look))
    elif not outputs.quiet:
        show(render_suite_text(suite, outputs.look))


def _documents(
    form: str, path: Path, suite: Suite, alone: Report | None
) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Yields each file with what renders it."""
    if EACH not in path.name:
        yield path, partial(_rendered, form, suite, alone)
        return
    names = [entry.name for entry in suite.entries]
    for file, entry in zip(_expanded(path, names), suite.entries, strict=True):
        yield file, partial(REPORTS[form], entry.report)


def _rendered(form: str, suite: Suite, alone: Report | None) -> str:
    if alone is None and form in SUITES:
        return SUITES[form](suite)
    (entry,) = suite.entries
    return REPORTS[form](entry.report)


def _expanded(path: Path, names: Iterable[str]) -> list[Path]:
    """Returns the file of each target; characters that a name may not hold are gone."""
    if EACH not in path.name:
        return [path]
    return [path.with_name(path.name.replace(EACH, _slug(name))) for name in names]


def _slug(name: str) -> str:
    return _UNSAFE.sub("_", name)[:100].strip(".") or "_"
