"""Comparisons and conversions, as text, JSON or HTML."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vgaudit.compare import Comparison, Figures
from vgaudit.conversion import Conversion, Edit
from vgaudit.errors import CannotLoad
from vgaudit.findings import Finding, Report
from vgaudit.flow import Source
from vgaudit.plain import to_plain, visible
from vgaudit.reports import html
from vgaudit.reports.json import schema as schema_of
from vgaudit.reports.moved import counted, shifted
from vgaudit.reports.sides import described, score_rows, scored_on, sides_of
from vgaudit.rules.wording import count, decades, number, percent
from vgaudit.typed import Mismatch, typed

SCHEMA_VERSION = "1.0"
LABEL = 28
MOST = 12
"""Edits, and reasons of refusals, that text shows; JSON has them all."""

MOST_FINDINGS = 20
"""Findings of a kind that text shows of a comparison alone."""


def render(
    comparison: Comparison,
    *,
    form: str,
    top: int = MOST_FINDINGS,
    reports: tuple[Report, Report] | None = None,
) -> str:
    """Returns a comparison as ``text``, ``json`` or ``html``.

    Args:
        comparison: of two reports.
        form: the format.
        top: findings of a kind that text shows.
        reports: the two, before and after: the pictures of HTML are theirs.
    """
    if form == "html":
        return html.compared(comparison, *(reports or ())).document()
    if form == "json":
        record = {"schema_version": SCHEMA_VERSION, "comparison": to_plain(comparison)}
        return json.dumps(record, allow_nan=False, indent=1) + "\n"
    lines = [*_sides(comparison), *_scores(comparison)]
    if lines:
        lines.append("gradient health")
    lines += comparison_lines(comparison, top, notes=comparison.notes)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonDocument:
    """What ``render`` writes as JSON."""

    schema_version: str
    comparison: Comparison


def schema() -> str:
    """Returns the JSON schema of the report on a comparison."""
    return schema_of(ComparisonDocument, "vgaudit report on a comparison")


def _sides(found: Comparison) -> Iterator[str]:
    """Yields what stands on each side, and a blank line; nothing of old reports."""
    sides = sides_of(found)
    for when, side in sides:
        words = dict(described(side))
        model = words.pop("model", "")
        head = visible(side.name) or model
        yield f"{when:<8}{head}"
        about = f"{model}: " if model and model != head else ""
        what = f"{about}{words['architecture']}, {words['size']}"
        for text in (what, f"on {words['measured on']}; loss {words['loss']}"):
            yield from _lines(text, "        ", "          ")
    if sides:
        yield ""


def _scores(found: Comparison) -> Iterator[str]:
    """Yields the scores of both sides, and a blank line; nothing where one has none."""
    rows = score_rows(found)
    if not rows:
        return
    yield f"{'':<{LABEL}}{'before':>12}{'after':>12}{'change':>12}"
    for row in rows:
        change = row.change if len(row.change) > 9 else f"{row.change:>9}"
        yield f"{row.label:<{LABEL}}{row.before:>12}{row.after:>12}   {change}"
    yield from _lines(scored_on(found))
    yield ""


def render_conversion(
    done: Conversion, comparison: Comparison | None, *, form: str, top: int = MOST
) -> str:
    """Returns a conversion with its comparison as ``text``, ``json`` or ``html``."""
    if form == "html":
        return html.converted(done, comparison).document()
    if form == "json":
        record = {
            "schema_version": SCHEMA_VERSION,
            "conversion": to_plain(done),
            "comparison": to_plain(comparison),
        }
        return json.dumps(record, allow_nan=False, indent=1) + "\n"
    lines = [*_conversion(done, top)]
    if comparison is not None:
        lines += ["", *comparison_lines(comparison, top)]
    lines += ["", *_closing(done)]
    return "\n".join(lines) + "\n"


def parse_conversion(record: object) -> Conversion:
    """Returns the conversion that a worker sent as plain values.

    Raises:
        CannotLoad: it is none.
    """
    try:
        return typed(Conversion, record)
    except Mismatch as error:
        raise CannotLoad(f"not a conversion: {error}") from error


def _conversion(done: Conversion, top: int) -> Iterator[str]:
    refused = f"{count(len(done.refusals), 'activation')} not"
    yield f"converted to {done.options.to}: {count(len(done.edits), 'edit')}, {refused}"
    for edit in done.edits[:top]:
        yield from _lines(f"  {_place(edit)} ({edit.kind}): {edit.change}")
    if len(done.edits) > top:
        yield f"  … and {len(done.edits) - top:,} more"
    if done.refusals:
        yield ""
        yield "VG701 not converted:"
        yield from _refusals(done, top)
    yield from _totals(done.edits)
    yield ""
    if done.preserved:
        yield "outputs: bit-equal to those before, in train and in eval mode"
    else:
        yield (
            f"outputs: changed by up to {number(done.max_abs_diff)} "
            f"(largest output before {number(done.output_scale)})"
        )


def _lines(text: str, first: str = "", rest: str = "      ") -> list[str]:
    """Returns a line in as many as 80 columns make of it, the rest indented."""
    return textwrap.wrap(
        text,
        80,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _totals(edits: Sequence[Edit]) -> Iterator[str]:
    """Yields what was measured over all edits: |z| > L, and hinges without data."""
    shares = [(e.exceeding, _place(e)) for e in edits if e.exceeding is not None]
    if shares:
        mean = sum(share for share, _ in shares) / len(shares)
        worst, where = max(shares)
        yield from _lines(
            f"|z| > L in {percent(mean)} of the pre-activations on the data, up to "
            f"{percent(worst)} ({where}):"
        )
        yield "      ar does not bound |z| by L"
    total = sum(edit.hinges for edit in edits)
    if total:
        dead = sum(edit.dead_hinges for edit in edits)
        yield (
            f"hinges: {dead:,} of {total:,} are dead on the data: no value falls "
            "beside them, so they get no gradient"
        )


def _place(edit: Edit) -> str:
    """Returns the layer, or the activation call where the model itself was edited."""
    return visible(edit.path or next(iter(edit.activations), "the model"))


def _refusals(done: Conversion, top: int) -> Iterator[str]:
    """Yields each reason once, with the places it holds for."""
    places: dict[str, list[str]] = {}
    for refusal in done.refusals:
        where = f"{visible(refusal.path)}{_at(refusal.source)}"
        places.setdefault(refusal.reason, []).append(where)
    for reason, found in list(places.items())[:top]:
        more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        yield f"  {found[0]}{more}: {reason}"
    if len(places) > top:
        yield f"  … and {len(places) - top:,} more reasons"


def _at(source: Source | None) -> str:
    if source is None:
        return ""
    name = source.file.replace("\\", "/").rpartition("/")[2]
    return f" ({visible(name)}:{source.line})"


def comparison_lines(
    comparison: Comparison, top: int, *, notes: Sequence[str] = ()
) -> Iterator[str]:
    """Yields a comparison line by line, with at most ``top`` findings of a kind.

    Notes stand below the verdict, which says nothing of what else differs.
    """
    a, b = comparison.before, comparison.after
    yield f"{'':<{LABEL}}{'before':>12}{'after':>12}"
    for label, old, new in _rows(a, b):
        yield f"{label:<{LABEL}}{old:>12}{new:>12}"
    yield ""
    yield f"{comparison.verdict}: {counted(comparison)}"
    for note in notes:
        yield from _lines(f"note: {visible(note, length=400)}")
    moved = (*comparison.risen, *comparison.fallen)
    kept = [(f, shifted(was, f.level)) for was, f in moved]
    for mark, found in (
        ("gone", [(f, "") for f in comparison.gone]),
        ("new", [(f, "") for f in comparison.new]),
        ("kept", [*kept, *((f, "") for f in comparison.steady)]),
    ):
        yield from _findings(mark, found, top)


def _rows(a: Figures, b: Figures) -> Iterator[tuple[str, str, str]]:
    yield "status", a.status, b.status
    yield "attenuation, decades", _decades(a.attenuation), _decades(b.attenuation)
    yield "max/min gradient, decades", _decades(a.spread), _decades(b.spread)
    yield "most saturated activation", _share(a.saturated), _share(b.saturated)
    gates = (a.saturated_gate, b.saturated_gate)
    if gates != (None, None):
        yield "most saturated gate", _share(gates[0]), _share(gates[1])
    yield "output varies by", _share(a.variation), _share(b.variation)
    yield "errors, warnings", _counts(a), _counts(b)


def _counts(figures: Figures) -> str:
    return f"{figures.errors}, {figures.warnings}"


def _decades(value: float | None) -> str:
    return "–" if value is None else decades(value)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _findings(
    mark: str, found: Sequence[tuple[Finding, str]], top: int
) -> Iterator[str]:
    """Yields findings, each with how its level changed, where it did."""
    for finding, shift in found[:top]:
        where = visible(finding.layer) or "the model"
        line = f"  {mark:<5} {finding.level:<8} {finding.code} {finding.name}  {where}"
        yield f"{line}  ({shift})" if shift else line
    if len(found) > top:
        yield f"  {mark:<5} … and {len(found) - top:,} more"


def _closing(done: Conversion) -> Iterator[str]:
    for sentence in done.notes:
        yield f"note: {sentence}"
    if done.written:
        yield "written: " + ", ".join(visible(name) for name in done.written)
    else:
        yield "nothing was written; -o OUT.safetensors writes the converted model"


def advice(done: Conversion, comparison: Comparison) -> tuple[str, ...]:
    """Returns what to tell a user about a conversion, beside the figures."""
    if comparison.healthy and not done.preserved:
        return (
            "the scan before found nothing to treat: leave this model as it is, a "
            "conversion can only cost accuracy",
        )
    if comparison.verdict in ("worse", "mixed"):
        what = "new findings" if comparison.new else "graver findings"
        return (f"the conversion brought {what}; look at them before training",)
    return ()


def with_notes(done: Conversion, notes: tuple[str, ...]) -> Conversion:
    """Returns a conversion with more notes."""
    from dataclasses import replace

    values: dict[str, Any] = {"notes": (*done.notes, *notes)}
    return replace(done, **values)
