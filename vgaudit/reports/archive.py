"""Archived JSON reports on changes: told apart, shown again, and their scans.

Trainings, conversions, repairs and comparisons are written by ``--report json=PATH``
as one object each; what it is, its keys tell. Reports of ``scan`` and ``check`` are
not of this module: see ``reports.json`` and ``reports.suites``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vgaudit.compare import Comparison
from vgaudit.conversion import Conversion
from vgaudit.errors import CannotLoad
from vgaudit.fixing import Fixing
from vgaudit.flow import Audit
from vgaudit.reports import comparison, fixing, retraining
from vgaudit.reports.json import KINDS, check_version, validated
from vgaudit.retraining import Retraining
from vgaudit.scores import Score, of_repair, of_training

T = TypeVar("T")
Part = Literal["before", "after"]

RESUME = "the same command with --resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A report on a change.

    Attributes:
        kind: ``training``, ``conversion``, ``repair`` or ``comparison``.
        render: returns it as ``text``, ``json`` or ``html``, with so many rows of a
            kind in text.
        top: the rows that its own command shows, if nothing else is asked for.
        before, after: its scans, where it holds them.
        scores: of the model before and after, where it holds them.
    """

    kind: str
    render: Callable[[str, int], str]
    top: int = comparison.MOST
    before: Audit | None = None
    after: Audit | None = None
    scores: tuple[Score | None, Score | None] = (None, None)

    def score(self, part: Part) -> Score | None:
        """Returns how good the model of one of its scans is; None if unknown."""
        return self.scores[0 if part == "before" else 1]

    def scan(self, part: Part) -> Audit:
        """Returns one of its scans.

        Raises:
            CannotLoad: it holds none.
        """
        found = self.before if part == "before" else self.after
        if found is not None:
            return found
        hint = "give two reports of scan"
        if part == "after" and self.before is not None:
            hint = "it was not finished; FILE.json#before is the scan before it"
        raise CannotLoad(
            f"the report of a {self.kind} holds no scan {part} it", hint=hint
        )


def archived(text: str) -> Archived | None:
    """Returns the report on a change in a text; None where it is none.

    Raises:
        CannotLoad: it is one that this version cannot read.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    key = next((key for key in KINDS if isinstance(record.get(key), dict)), None)
    if key is None:
        return None
    check_version(record)
    return _OPEN[key](record)


def _training(record: dict[str, Any]) -> Archived:
    done, both = _read(Retraining, record, "retraining"), _comparison(record)

    def render(form: str, top: int) -> str:
        return retraining.render(done, both, form=form, top=top, resume=RESUME)

    return _scanned("retraining", done, render, of_training(done))


def _conversion(record: dict[str, Any]) -> Archived:
    done, both = _read(Conversion, record, "conversion"), _comparison(record)

    def render(form: str, top: int) -> str:
        return comparison.render_conversion(done, both, form=form, top=top)

    return _scanned("conversion", done, render)


def _repair(record: dict[str, Any]) -> Archived:
    done = _read(Fixing, record, "fixing")

    def render(form: str, _top: int) -> str:
        return fixing.render(done, form=form, resume=RESUME)

    return _scanned("fixing", done, render, of_repair(done))


def _compared(record: dict[str, Any]) -> Archived:
    found = _read(Comparison, record, "comparison")
    return Archived(
        kind=KINDS["comparison"],
        top=comparison.MOST_FINDINGS,
        render=lambda form, top: comparison.render(found, form=form, top=top),
    )


def _scanned(
    key: str,
    done: Retraining | Conversion | Fixing,
    render: Callable[[str, int], str],
    scores: tuple[Score | None, Score | None] = (None, None),
) -> Archived:
    """Returns the report on a change that was scanned before and after."""
    return Archived(
        kind=KINDS[key],
        render=render,
        before=done.before,
        after=done.after,
        scores=scores,
    )


_OPEN: dict[str, Callable[[dict[str, Any]], Archived]] = {
    "retraining": _training,
    "conversion": _conversion,
    "fixing": _repair,
    "comparison": _compared,
}


def _comparison(record: dict[str, Any]) -> Comparison | None:
    if record.get("comparison") is None:
        return None
    return _read(Comparison, record, "comparison")


def _read(kind: type[T], record: dict[str, Any], key: str) -> T:
    return validated(kind, record[key], f"the report of a {KINDS[key]}")
