"""The form of the configuration file: every key, its type, and its meaning."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _spelled(name: str) -> str:
    return name.replace("_", "-")


class _Table(BaseModel):
    """Keys are written ``fail-on`` or ``fail_on``; any other key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        populate_by_name=True,
        alias_generator=_spelled,
    )


Text = Annotated[str, Field(min_length=1)]
Level = Literal["error", "warning", "info"]
Thresholds = dict[str, dict[str, float]]


class BudgetTable(_Table):
    """A limit on a figure of the whole model."""

    limit: float
    level: Level = "error"


def _table(limit: Any) -> Any:
    """Returns a bare number as the table it is short for."""
    bare = isinstance(limit, int | float) and not isinstance(limit, bool)
    return {"limit": float(limit)} if bare else limit


Budgets = dict[str, Annotated[BudgetTable, BeforeValidator(_table)]]


class IgnoreTable(_Table):
    """Findings to live with, why, and for how long."""

    rules: Annotated[list[Text], Field(min_length=1)]
    reason: Text
    layers: list[Text] = []
    targets: list[Text] = []
    expires: datetime.date | None = None


class Shared(_Table):
    """Keys of the whole project that a target may replace."""

    batches: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    mode: Literal["train", "eval"] | None = None
    device: Text | None = None
    dtype: Text | None = None
    seed: int | None = None
    timeout: Annotated[float, Field(ge=1)] | None = None
    max_memory: Text | None = None
    require_sandbox: bool | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    select: list[Text] | None = None
    ignore: list[Text] | None = None
    fail_on: Literal["error", "warning", "info", "never"] | None = None
    preset: Literal["recommended", "strict", "all"] | None = None
    thresholds: Thresholds = {}
    budgets: Budgets = {}


class TargetTable(Shared):
    """One model to check."""

    name: Text
    model: Text
    arch: Text | None = None
    weights: Text | None = None
    key: Text | None = None
    model_args: dict[str, str | int | float | bool] = {}
    allow_missing: bool | None = None
    pretrained: bool | None = None
    sha256: Text | None = None
    data: Text | None = None
    input: list[Text] | None = None
    loss: Text | None = None
    output: Text | None = None
    unfreeze: bool | None = None
    deep: bool | None = None
    static: bool | None = None
    allow_nonfinite: bool | None = None


class ProjectTable(Shared):
    """``[tool.vgaudit]`` as a whole."""

    baseline: Text | None = None
    jobs: Annotated[int, Field(ge=1)] | None = None
    ignores: list[IgnoreTable] = []
    targets: list[TargetTable] = []


KNOWN: dict[str, type[_Table]] = {
    "": ProjectTable,
    "targets": TargetTable,
    "ignores": IgnoreTable,
    "budgets": BudgetTable,
}
"""Which table stands under which key, for the names in an error."""


def spellings(table: type[_Table]) -> list[str]:
    """Returns the keys of a table as a file writes them."""
    return [_spelled(name) for name in table.model_fields]
