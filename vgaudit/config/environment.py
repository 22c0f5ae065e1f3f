"""Settings in environment variables: ``VGAUDIT_`` and the key in capitals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgaudit.config.trust import TRUST, refuse
from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible

PREFIX = "VGAUDIT_"
CONFIG = "VGAUDIT_CONFIG"
_FOREIGN = "VGAUDIT_TEST_"
"""Variables of the test suite, which is none of the configuration's business."""

_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
KINDS: dict[str, type] = {
    "batches": int,
    "batch-size": int,
    "mode": str,
    "device": str,
    "dtype": str,
    "seed": int,
    "timeout": float,
    "max-memory": str,
    "require-sandbox": bool,
    "optimizer": str,
    "select": list,
    "ignore": list,
    "fail-on": str,
    "preset": str,
    "baseline": str,
    "jobs": int,
}
"""The keys that a variable can set, with the type of each."""


def record(environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the variables set, by the keys of the file.

    Raises:
        BadConfig: a variable names no key, a trust flag, or holds no such value.
    """
    found: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(_FOREIGN):
            continue
        if variable == CONFIG or not environ[variable]:
            continue
        key = variable.removeprefix(PREFIX).lower().replace("_", "-")
        if key in TRUST:
            raise refuse(variable, "the environment")
        if key not in KINDS:
            known = [f"{PREFIX}{_capitals(name)}" for name in KINDS]
            raise BadConfig(
                f"unknown environment variable {visible(variable)}",
                hint=f"{nearest(variable, known)}known: {', '.join(known)}",
            )
        found[key] = _value(KINDS[key], environ[variable], variable)
    return found


def _capitals(key: str) -> str:
    return key.upper().replace("-", "_")


def _value(kind: type, text: str, variable: str) -> Any:
    if kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in _TRUE | _FALSE:
            return lowered in _TRUE
        raise _unfit(variable, text, "true or false")
    try:
        return kind(text)
    except ValueError:
        raise _unfit(variable, text, "a number") from None


def _unfit(variable: str, text: str, wanted: str) -> BadConfig:
    return BadConfig(
        f"{variable}={visible(text)} is not {wanted}",
        hint="unset the variable, or mend its value",
    )
