"""From judged reports to a decided suite: policies, agreement and baseline."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from vgaudit.baseline import Baseline, load, targets_for
from vgaudit.cli import jobs
from vgaudit.cli.configured import settled, stated, typed
from vgaudit.config import Settings, TargetSettings
from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.gate import decide
from vgaudit.judge import Policy
from vgaudit.plain import visible
from vgaudit.suite import Suite


def policies_again(ctx: typer.Context, suite: Suite) -> dict[str, Policy]:
    """Returns what decides each archived report.

    What nobody stated stays as it was when the report was judged.

    Raises:
        BadConfig: a rule or threshold is unknown.
    """
    found = {}
    own = {target.name: target for target in _settings(ctx).targets}
    for entry in suite.entries:
        policy = policy_for(ctx, own.get(entry.name))
        kept: dict[str, Any] = {}
        target = own[entry.name].values if entry.name in own else {}
        if not stated(ctx, "optimizer") and "optimizer" not in target:
            kept["optimizer"] = entry.report.optimizer
        levels = stated(ctx, "fail_on") or stated(ctx, "preset")
        if not levels and "fail_on" not in target:
            kept["fail_on"] = entry.report.fail_on
        found[entry.name] = replace(policy, **kept)
    return found


def policy_for(ctx: typer.Context, target: TargetSettings | None) -> Policy:
    """Returns what decides the verdict on a target: typed, then its own settings.

    Raises:
        BadConfig: a rule or threshold is unknown.
    """
    given = settled(ctx)
    if target is not None:
        given = {**given, **over(ctx, target.values), "config": target}
    return jobs.policy(given, ctx.obj)


def over(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a target that nothing on the command line replaces."""
    typed_level = typed(ctx, "fail_on") or typed(ctx, "preset")
    return {
        name: value
        for name, value in values.items()
        if not (typed(ctx, name) or (name == "fail_on" and typed_level))
    }


def stored(ctx: typer.Context) -> Baseline | None:
    """Returns the baseline that the run is compared with; None where none is wanted.

    It is read before any model is run: what is missing is known at once.

    Raises:
        BadConfig: it is missing, or no baseline of this version.
    """
    path = baseline_path(ctx.params["baseline"], _settings(ctx))
    if path is None:
        return None
    if not path.exists() and ctx.params["allow_no_baseline"]:
        where = visible(str(path))
        sys.stderr.write(f"vgaudit: no baseline at {where}: all findings count\n")
        return None
    return load(path)


def decided(
    ctx: typer.Context,
    reports: Mapping[str, Report],
    policies: Mapping[str, Policy],
    baseline: Baseline | None,
) -> Suite:
    """Returns the reports held to the project's terms.

    Raises:
        BadConfig: the baseline is of another model or lacks a target, or a rule is
            unknown.
    """
    known = None
    if baseline is not None:
        # Nothing is known of a run that failed, and nothing has to be.
        measured = {name: x for name, x in reports.items() if x.audit is not None}
        known = targets_for(baseline, measured, "the baseline")
    agreement = _settings(ctx).agreement(known)
    command = next(iter(policies.values())).command if policies else ""
    return decide(reports, agreement, policies, command=command)


def baseline_path(given: str | None, found: Settings) -> Path | None:
    """Returns where the baseline is: typed, or set by the project.

    Raises:
        BadConfig: the name is empty.
    """
    if given is None:
        return found.baseline
    if not given:
        raise BadConfig(
            "--baseline is empty", hint="give the name of a file, or leave it out"
        )
    return Path(given)


def _settings(ctx: typer.Context) -> Settings:
    found = ctx.params.get("config")
    return found if isinstance(found, Settings) else Settings()
