"""The baseline file: what is known of each target, in versioned JSON.

A missing file, a file of another format or version, and a target that is not in it
are errors: a gate that compares with nothing would pass everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgaudit import __version__
from vgaudit.compare import pairs
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.flow import Interval
from vgaudit.plain import to_plain, visible
from vgaudit.rules.gate.known import known
from vgaudit.rules.gate.metrics import METRICS
from vgaudit.suite import Suite
from vgaudit.terms import Known
from vgaudit.typed import Mismatch, typed

FORMAT = 1
METRICS_VERSION = 1
"""Grows when a figure gets another meaning; older baselines are refused then."""

DEFAULT_NAME = "vgaudit-baseline.json"
MOST_BYTES = 256 * 2**20
_REWRITE = "`vgaudit baseline write REPORT.json --force` writes a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The file as a value.

    Attributes:
        baseline_format: of the file. metrics_version: of the figures' meaning.
        written_by: version of vgaudit.
        targets: what is known, by the name of the target.
    """

    baseline_format: int
    metrics_version: int
    written_by: str
    targets: dict[str, Known]


def from_suite(suite: Suite) -> Baseline:
    """Returns the baseline of what a run found.

    Raises:
        NothingMeasured: a target was not measured, or too little of it.
        BadConfig: a target could not be run.
    """
    for entry in suite.entries:
        if entry.report.status == "inconclusive":
            raise NothingMeasured(
                f"nothing to keep of {visible(entry.name)}: its run was inconclusive",
                hint="; ".join(entry.report.warnings) or "see the report",
            )
    targets = {entry.name: known(entry.report) for entry in suite.entries}
    return Baseline(
        baseline_format=FORMAT,
        metrics_version=METRICS_VERSION,
        written_by=__version__,
        targets=targets,
    )


def render(baseline: Baseline) -> str:
    """Returns the text of the file."""
    return json.dumps(to_plain(baseline), allow_nan=False, indent=1) + "\n"


def load(path: Path) -> Baseline:
    """Returns the baseline in a file.

    Raises:
        BadConfig: there is no such file, or it is no baseline of this version.
    """
    shown = visible(str(path))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadConfig(f"{shown} is larger than any baseline", hint=_REWRITE)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadConfig(
            f"no baseline: {shown} does not exist",
            hint=f"`vgaudit baseline write REPORT.json -o {shown}` writes it; "
            "--allow-no-baseline goes on without",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{shown} cannot be read: {error}", hint=_REWRITE) from error
    return parse(text, shown)


def parse(text: str, shown: str) -> Baseline:
    """Returns the baseline in a text.

    Args:
        text: as ``render`` wrote it.
        shown: the name of the file, for messages.

    Raises:
        BadConfig: it is none, or of another version.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfig(
            f"{shown} is no JSON: {visible(str(error))}", hint=_REWRITE
        ) from error
    _refuse_versions(record, shown)
    try:
        return typed(Baseline, record)
    except Mismatch as error:
        raise BadConfig(f"{shown} is no baseline: {error}", hint=_REWRITE) from error


def targets_for(
    baseline: Baseline, names: Mapping[str, object], shown: str
) -> dict[str, Known]:
    """Returns what is known of each name.

    A baseline of one target fits a run of one target, whatever their names: a
    file's name may hold a date. That it is the same model is checked elsewhere.

    Raises:
        BadConfig: a target is not in the baseline.
    """
    if len(names) == 1 and len(baseline.targets) == 1:
        return {next(iter(names)): next(iter(baseline.targets.values()))}
    missing = [visible(name) for name in names if name not in baseline.targets]
    if missing:
        raise BadConfig(
            f"{shown} knows nothing of {', '.join(missing)}",
            hint=f"it knows {', '.join(map(visible, baseline.targets)) or 'nothing'}; "
            f"{_REWRITE}",
        )
    return {name: baseline.targets[name] for name in names}


def pruned(baseline: Baseline, suite: Suite) -> Baseline:
    """Returns the baseline without what is gone, and with what became better.

    Targets that the run does not have stay as they are; findings that are new, and
    figures that became worse, are not taken over.

    Raises:
        NothingMeasured, BadConfig: as in ``from_suite``.
    """
    now = from_suite(suite).targets
    before = {
        name: old
        for name, old in targets_for(baseline, now, "the baseline").items()
        if name in now
    }
    single = len(now) == 1 and len(baseline.targets) == 1
    kept = {name: _ratcheted(old, now[name]) for name, old in before.items()}
    if single:
        kept = dict(zip(baseline.targets, kept.values(), strict=True))
    return replace(
        baseline, written_by=__version__, targets={**baseline.targets, **kept}
    )


def _ratcheted(old: Known, new: Known) -> Known:
    still = [id(before) for before, _ in pairs(old.findings, new.findings)]
    metrics = {
        name: _better(name, figure, new.metrics.get(name))
        for name, figure in old.metrics.items()
    }
    fallen = metrics.get("attenuation") == old.metrics.get("attenuation")
    return replace(
        old,
        findings=tuple(f for f in old.findings if id(f) in still),
        metrics=metrics,
        layers=old.layers if fallen else new.layers,
    )


def _better(name: str, old: Interval, new: Interval | None) -> Interval:
    metric = METRICS.get(name)
    if metric is None or new is None:
        return old
    return new if metric.worse(new.value, old.value) < 0 else old


def _refuse_versions(record: Any, shown: str) -> None:
    found = record.get("baseline_format") if isinstance(record, dict) else None
    if found is None:
        raise BadConfig(f"{shown} is no vgaudit baseline", hint=_REWRITE)
    metrics = record.get("metrics_version")
    if found != FORMAT or metrics != METRICS_VERSION:
        raise BadConfig(
            f"{shown} is of format {visible(str(found))} with figures of version "
            f"{visible(str(metrics))}; this vgaudit reads {FORMAT} and "
            f"{METRICS_VERSION}",
            hint=_REWRITE,
        )
