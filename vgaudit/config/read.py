"""Finds the configuration, reads it, and says what is wrong with it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgaudit.config import environment
from vgaudit.config.settings import PRESETS, Settings, TargetSettings
from vgaudit.config.trust import refuse_trust
from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible
from vgaudit.rules.gate.metrics import metric
from vgaudit.rules.selection import configured
from vgaudit.terms import Budget, Ignore
from vgaudit.typed import Mismatch, typed

if TYPE_CHECKING:
    from vgaudit.config.tables import Budgets, ProjectTable, Shared, TargetTable

OWN, PROJECT = "vgaudit.toml", "pyproject.toml"
MOST_BYTES = 4 * 2**20
_NO_OPTIONS = frozenset(
    {
        "baseline",
        "budgets",
        "ignores",
        "jobs",
        "model_args",
        "name",
        "preset",
        "targets",
        "thresholds",
    }
)
"""Keys that are not options of ``vgaudit scan`` under the same name."""


def settings(
    path: str | None, environ: Mapping[str, str], *, start: Path | None = None
) -> Settings:
    """Returns the settings of a project, the environment before the file.

    Args:
        path: the file; the nearest one above ``start`` without.
        environ: environment variables.
        start: where the search begins; the working folder by default.

    Raises:
        BadConfig: the file cannot be read, or says what no file can say.
    """
    named = path or environ.get(environment.CONFIG) or ""
    file = _given(named) if named else _nearest_file(start or Path.cwd())
    document = _document(file) if file is not None else {}
    nested = file is None or _is_nested(file, document)
    record = _own_table(document) if nested else document
    changed = environment.record(environ)
    if not record and not changed:
        return Settings(file=file, nested=nested)
    found = _parsed(record, _shown(file))
    over = _parsed(changed, "the environment")
    return replace(_settings(file, found, over), nested=nested)


def _given(name: str) -> Path:
    file = Path(name)
    if not file.is_file():
        raise BadConfig(
            f"no such configuration file: {visible(name)}",
            hint=f"give a {OWN}, or a {PROJECT} with a table [tool.vgaudit]",
        )
    return file.absolute()


def _nearest_file(start: Path) -> Path | None:
    """Returns the configuration in a folder, or in the nearest one above it."""
    for folder in (start.absolute(), *start.absolute().parents):
        own, project = folder / OWN, folder / PROJECT
        shared = project.is_file() and bool(_own_table(_document(project)))
        if own.is_file() and shared:
            raise BadConfig(
                f"two configurations: {visible(str(own))}, and [tool.vgaudit] in "
                f"{PROJECT} beside it",
                hint="keep one of them",
            )
        if own.is_file() or shared:
            return own if own.is_file() else project
    return None


def _document(file: Path) -> dict[str, Any]:
    """Returns what a file holds."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadConfig(
                f"{_shown(file)} is larger than any configuration",
                hint="give another file with --config",
            )
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadConfig(
            f"{_shown(file)} cannot be read: {visible(str(error), length=300)}",
            hint="mend the file, or give another with --config",
        ) from error


def _own_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the table [tool.vgaudit]; empty where there is none."""
    tool = document.get("tool", {})
    inside = tool.get("vgaudit", {}) if isinstance(tool, dict) else {}
    return inside if isinstance(inside, dict) else {"[tool.vgaudit]": inside}


def _is_nested(file: Path, document: Mapping[str, Any]) -> bool:
    """Tells whether a file keeps its keys in [tool.vgaudit], or bare.

    Raises:
        BadConfig: it has keys in both places.
    """
    inside = bool(_own_table(document))
    beside = sorted(set(document) - {"tool"})
    if file.name == PROJECT or not (inside and beside):
        return file.name == PROJECT or inside
    raise BadConfig(
        f"{_shown(file)}: '{visible(beside[0])}' stands beside [tool.vgaudit]",
        hint=f"in {OWN} leave 'tool.vgaudit.' out of the names of all tables, or move "
        "every key into [tool.vgaudit]",
    )


def _parsed(record: Mapping[str, Any], where: str) -> ProjectTable:
    from vgaudit.config.tables import ProjectTable

    refuse_trust(record, where)
    try:
        return typed(ProjectTable, record)
    except Mismatch as error:
        raise _explained(error, where) from error


def _explained(error: Mismatch, where: str) -> BadConfig:
    from vgaudit.config.tables import KNOWN, spellings

    path = list(error.path)
    if error.kind == "extra_forbidden":
        outer = [part for part in path[:-1] if part in KNOWN]
        names = spellings(KNOWN[outer[-1] if outer else ""])
        return BadConfig(
            f"{where}: unknown key '{visible(path[-1])}'{_inside(path[:-1])}",
            hint=f"{nearest(path[-1], names)}known: {', '.join(names)}",
        )
    message = error.fault.removeprefix("Value error, ")
    return BadConfig(
        f"{where}: {visible('.'.join(path)) or 'the table'}: {visible(message)}",
        hint="see docs/config.md for every key and its type",
    )


def _inside(path: list[str]) -> str:
    return f" in {visible('.'.join(path))}" if path else ""


def _settings(file: Path | None, found: ProjectTable, over: ProjectTable) -> Settings:
    shared = {**_options(found), **_options(over)}
    names = [target.name for target in found.targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadConfig(
            f"{_shown(file)}: two targets are called '{visible(twice)}'",
            hint="give each target a name of its own",
        )
    thresholds = _thresholds(found)
    return Settings(
        file=file,
        values=shared,
        thresholds=thresholds,
        targets=tuple(
            _target(table, shared, _options(over), thresholds)
            for table in found.targets
        ),
        ignores=_ignores(found),
        budgets=_budgets(found.budgets),
        baseline=_baseline(file, found, over),
        jobs=over.jobs or found.jobs,
    )


def _baseline(
    file: Path | None, found: ProjectTable, over: ProjectTable
) -> Path | None:
    """Returns the path of the baseline: a file's paths start from its folder."""
    if over.baseline is not None:
        return Path(over.baseline).absolute()
    if found.baseline is None or file is None:
        return None
    return file.parent / found.baseline


def _options(table: Shared) -> dict[str, Any]:
    """Returns what a table sets, by the names of options of ``vgaudit scan``."""
    values = {
        name: value
        for name, value in table
        if value is not None and name not in _NO_OPTIONS
    }
    if table.preset is not None:
        values.setdefault("fail_on", PRESETS[table.preset])
    return values


def _target(
    table: TargetTable,
    shared: Mapping[str, Any],
    over: Mapping[str, Any],
    thresholds: Mapping[str, float],
) -> TargetSettings:
    arguments = [f"{name}={_text(value)}" for name, value in table.model_args.items()]
    values = {**shared, **_options(table), **over, "model_arg": arguments}
    return TargetSettings(
        name=table.name,
        values=values,
        thresholds={**thresholds, **_thresholds(table)},
        budgets=_budgets(table.budgets),
    )


def _text(value: object) -> str:
    """Returns an argument as it would be typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _thresholds(table: Shared) -> dict[str, float]:
    flat = {
        f"{rule}.{name}": value
        for rule, limits in table.thresholds.items()
        for name, value in limits.items()
    }
    configured(flat)
    return flat


def _budgets(table: Budgets) -> tuple[Budget, ...]:
    return tuple(
        Budget(metric=metric(name).name, limit=entry.limit, level=entry.level)
        for name, entry in table.items()
    )


def _ignores(table: ProjectTable) -> tuple[Ignore, ...]:
    return tuple(
        Ignore(
            rules=tuple(entry.rules),
            layers=tuple(entry.layers),
            reason=entry.reason,
            expires=entry.expires,
            targets=tuple(entry.targets),
        )
        for entry in table.ignores
    )


def _shown(file: Path | None) -> str:
    return visible(file.name) if file is not None else "the configuration"
