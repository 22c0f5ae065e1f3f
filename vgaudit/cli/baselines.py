"""Where the baseline lies, and what there is to say about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from vgaudit.baseline import DEFAULT_NAME, Baseline
from vgaudit.config import Settings
from vgaudit.errors import BadConfig
from vgaudit.plain import visible
from vgaudit.reports.escaping import inert
from vgaudit.rules.gate.metrics import METRICS
from vgaudit.rules.wording import count
from vgaudit.terms import Known


def place(ctx: typer.Context, given: Path | None) -> Path:
    """Returns the baseline file: the given one, the project's, or the usual name."""
    settings = ctx.params.get("config")
    own = settings.baseline if isinstance(settings, Settings) else None
    return given or own or Path(DEFAULT_NAME)


def check_format(name: str) -> None:
    """Refuses a format that a baseline has not.

    Raises:
        BadConfig: it is neither text nor json.
    """
    if name not in ("text", "json"):
        raise BadConfig(
            f"unknown format '{visible(name)}' of a baseline", hint="known: text, json"
        )


def words(baseline: Baseline) -> str:
    """Returns the baseline as text."""
    blocks = ["\n".join(_target(name, x)) for name, x in baseline.targets.items()]
    return inert("\n\n".join(blocks) + "\n")


def tell(path: Path, baseline: Baseline) -> None:
    """Says on standard error what was written."""
    findings = sum(len(known.findings) for known in baseline.targets.values())
    targets = count(len(baseline.targets), "target")
    sys.stderr.write(
        f"vgaudit: {visible(str(path))}: {count(findings, 'finding')} of {targets} "
        "known from now on\n"
    )


def tell_pruned(path: Path, before: Baseline, after: Baseline) -> None:
    """Says on standard error what was forgotten and what became better."""
    gone = sum(
        len(old.findings) - len(after.targets[name].findings)
        for name, old in before.targets.items()
    )
    better = sum(
        figure != after.targets[name].metrics[metric]
        for name, old in before.targets.items()
        for metric, figure in old.metrics.items()
    )
    sys.stderr.write(
        f"vgaudit: {visible(str(path))}: {count(gone, 'finding')} forgotten, "
        f"{count(better, 'figure')} better\n"
    )


def _target(name: str, known: Known) -> Iterator[str]:
    how = known.measurement
    yield visible(name)
    yield (
        f"  {visible(how.architecture)} · {visible(how.probe)}, {visible(how.mode)}, "
        f"{visible(how.dtype)}, {visible(how.data)} data, {visible(how.optimizer)}"
    )
    for finding in known.findings:
        where = visible(finding.layer) or "the model"
        level = visible(finding.level)
        yield f"  {level:<8} {visible(finding.code)} {visible(finding.name)}  {where}"
    for metric, figure in known.metrics.items():
        if metric in METRICS:
            yield f"  {metric:<24} {METRICS[metric].shown(figure.value)}"
