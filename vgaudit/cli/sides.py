"""The two sides of a comparison: reports that are there, or models to be scanned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.judge import Policy
from vgaudit.plain import visible

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_report(spec: str) -> bool:
    """Tells a report from a model: JSON is none."""
    return Path(_named(spec)[0]).suffix == ".json"


def _named(spec: str) -> tuple[str, str]:
    """Returns a file and which of its scans: ``train.json#before``."""
    file, _, part = spec.rpartition("#")
    return (file, part) if file and part in ("before", "after") else (spec, "")


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
    first, second = (
        _archived(spec, number, same=specs[0] == specs[1], policy=policy)
        if is_report(spec)
        else _scanned(spec, given, policy)
        for number, spec in enumerate(specs)
    )
    return first, second


def _archived(spec: str, number: int, *, same: bool, policy: Policy) -> Report:
    """Returns a report, or the verdict on a scan in the report of a change.

    Of the report of a training the scan after it is meant; of one that is named twice
    the scan before it comes first.
    """
    from vgaudit.cli.output import read
    from vgaudit.judge import judge
    from vgaudit.reports.archive import archived
    from vgaudit.reports.json import parse

    file, part = _named(spec)
    text = read(Path(file))
    change = archived(text)
    if change is not None:
        before = part == "before" or (same and not part and number == 0)
        return judge(change.scan("before" if before else "after"), policy)
    if part:
        raise BadConfig(
            f"{visible(file)} is the report of one scan and has no {part}",
            hint=f"name it without #{part}",
        )
    return parse(text)


def _scanned(spec: str, given: Mapping[str, Any], policy: Policy) -> Report:
    from vgaudit.cli import jobs
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.judge import judge
    from vgaudit.reports.json import parse_audit

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
