"""The two sides of a comparison: reports that are there, or models to be scanned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgaudit.findings import Report
from vgaudit.judge import Policy

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_report(spec: str) -> bool:
    """Tells a report from a model: JSON is none."""
    return Path(spec).suffix == ".json"


def sides(
    specs: tuple[str, str], given: Mapping[str, Any], policy: Policy
) -> tuple[Report, Report]:
    """Returns both reports; models are scanned one after the other, on the same data.

    Args:
        specs: a report or a model each.
        given: the parameters of the command by name.
        policy: of the verdicts on models.

    Raises:
        VgauditError: a report cannot be read, a model cannot be loaded or run.
    """
    first, second = (_side(spec, given, policy) for spec in specs)
    return first, second


def _side(spec: str, given: Mapping[str, Any], policy: Policy) -> Report:
    from vgaudit.cli import jobs
    from vgaudit.cli.output import read
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.judge import judge
    from vgaudit.reports.json import parse, parse_audit

    if is_report(spec):
        return parse(read(Path(spec)))
    mine = {
        **given,
        "model": spec,
        # An architecture belongs to a file of weights; code and zoos name their own.
        "arch": given["arch"] if spec.partition("#")[0].endswith(_WEIGHTS) else None,
        "weights": None,
        "key": None,
        "sha256": None,
        "allow_nonfinite": False,
    }
    job, limits = jobs.scan_job(mine), jobs.limits(mine)
    with Phases(silent=given["no_progress"], quiet=given["quiet"]) as phases:
        audit = parse_audit(run("scan", job, limits=limits, watcher=phases))
    return judge(audit, policy)
