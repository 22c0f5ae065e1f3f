"""The two sides of a comparison: reports that are there, or models to be scanned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vgaudit.compare import Known
from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.judge import Policy
from vgaudit.plain import visible

Part = Literal["before", "after"]

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
) -> tuple[tuple[Report, Known], tuple[Report, Known]]:
    """Returns both reports, each with what else is known of its model.

    Models are scanned one after the other, on the same data, and scored on it.

    Args:
        specs: a report or a model each.
        given: the parameters of the command by name.
        policy: of the verdicts on models.

    Raises:
        VgauditError: a report cannot be read, a model cannot be loaded or run.
    """
    first, second = (
        _archived(spec, _part(spec, number, specs), policy)
        if is_report(spec)
        else _scanned(spec, given, policy)
        for number, spec in enumerate(specs)
    )
    return first, second


def _part(spec: str, number: int, specs: tuple[str, str]) -> Part:
    """Returns which scan of the report of a change is meant.

    The one after it; of a report that is named twice the one before comes first.
    """
    part = _named(spec)[1]
    if part == "before" or (not part and number == 0 and specs[0] == specs[1]):
        return "before"
    return "after"


def _archived(spec: str, part: Part, policy: Policy) -> tuple[Report, Known]:
    """Returns a report, or the verdict on a scan in the report of a change."""
    from vgaudit.cli.output import read
    from vgaudit.judge import judge
    from vgaudit.reports.archive import archived
    from vgaudit.reports.json import parse

    file, named = _named(spec)
    text = read(Path(file))
    change = archived(text)
    if change is not None:
        report = judge(change.scan(part), policy)
        return report, Known(name=f"{file}#{part}", score=change.score(part))
    if named:
        raise BadConfig(
            f"{visible(file)} is the report of one scan and has no {named}",
            hint=f"name it without #{named}",
        )
    return parse(text), Known(name=spec)


def _scanned(
    spec: str, given: Mapping[str, Any], policy: Policy
) -> tuple[Report, Known]:
    from vgaudit.cli import jobs
    from vgaudit.cli.process import run
    from vgaudit.cli.progress import Phases
    from vgaudit.judge import judge
    from vgaudit.reports.json import validated
    from vgaudit.scores import Scored

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
        answer = run("score", job, limits=limits, watcher=phases)
    found = validated(Scored, answer, "a vgaudit measurement")
    known = Known(name=spec, score=found.score, unscored=found.unscored)
    return judge(found.audit, policy), known
