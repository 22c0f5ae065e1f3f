"""The settings of a project as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgaudit.errors import BadConfig
from vgaudit.findings import FailOn
from vgaudit.gate import Agreement
from vgaudit.plain import visible
from vgaudit.terms import Budget, Ignore, Known

PRESETS: dict[str, FailOn] = {
    "recommended": "error",
    "strict": "warning",
    "all": "info",
}
"""The least level of a finding that fails the gate, by the name of the preset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """One model to check.

    Attributes:
        name: unique in the project.
        values: by the names of the options of ``vgaudit scan``.
        thresholds: by ``rule.name``.
        budgets: on figures of this model.
    """

    name: str
    values: Mapping[str, Any]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the file and the environment say, the environment first.

    Attributes:
        file: where it was read; None without a file.
        nested: its keys stand in ``[tool.vgaudit]``, not bare.
        values: by the names of options that commands share.
        thresholds: by ``rule.name``.
        targets: the models that ``vgaudit check`` scans.
        ignores: findings to live with.
        budgets: on figures of every model.
        baseline: path of the baseline file.
        jobs: targets to scan at once.
    """

    file: Path | None = None
    nested: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[TargetSettings, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    budgets: tuple[Budget, ...] = ()
    baseline: Path | None = None
    jobs: int | None = None

    @property
    def folder(self) -> Path:
        """The folder that paths in the file start from."""
        return self.file.parent if self.file is not None else Path.cwd()

    def agreement(self, known: Mapping[str, Known] | None) -> Agreement:
        """Returns what every target is held to.

        Args:
            known: the baseline by the name of the target.
        """
        budgets = {target.name: target.budgets for target in self.targets}
        return Agreement(
            ignores=self.ignores,
            budgets={**budgets, "": self.budgets},
            known=known,
        )

    def chosen(self, names: tuple[str, ...]) -> tuple[TargetSettings, ...]:
        """Returns the targets of the given names; all where none is given.

        Raises:
            BadConfig: there are no targets, or one of them is not there.
        """
        where = (
            visible(str(self.file)) if self.file else "pyproject.toml or vgaudit.toml"
        )
        if not self.targets:
            table = "tool.vgaudit.targets" if self.nested else "targets"
            raise BadConfig(
                f"no targets: {where} has no [[{table}]]",
                hint="add a table with name and model for each, or use `vgaudit scan`",
            )
        known = {target.name: target for target in self.targets}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise BadConfig(
                f"no target '{visible(unknown[0])}' in {where}",
                hint=f"it has {', '.join(map(visible, known))}",
            )
        return tuple(known[name] for name in names) if names else self.targets
