"""What no file may decide: which code runs, and how well it is locked up.

A configuration lies in the repository that is audited. Whoever wrote the one wrote
the other, so it cannot say that the code in it is to be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vgaudit.errors import BadConfig
from vgaudit.plain import visible

TRUST = frozenset(
    {"allow-code", "trust-pickle", "import-path", "import-paths", "no-sandbox", "env"}
)

_SPECS = ("model", "arch", "data", "loss")
_DATA_FREE = re.compile(r"^(torchvision|timm|hf|imagefolder):")
_CODE = re.compile(r"^(?P<home>.+):(?P<name>[A-Za-z_][\w.]*)$", re.DOTALL)


def refuse(key: str, where: str) -> BadConfig:
    """Returns the error about a trust flag outside the command line."""
    return BadConfig(
        f"{visible(key)} in {where}: trust flags are command-line only",
        hint="remove it, and give the option where the command is typed",
    )


def refuse_trust(record: Mapping[str, Any], where: str) -> None:
    """Refuses a file that asks for trust, in the project's table or a target's.

    Raises:
        BadConfig: it does.
    """
    targets = record.get("targets")
    tables = [record, *(targets if isinstance(targets, list) else ())]
    for table in tables:
        if not isinstance(table, Mapping):
            continue
        for key in table:
            if str(key).replace("_", "-") in TRUST:
                raise refuse(str(key), where)


def code(values: Mapping[str, Any]) -> str:
    """Returns the first spec of a target that names code to run, or nothing.

    A factory on the command line is trusted because somebody typed it. In a file,
    it needs ``--allow-code``.
    """
    for key in _SPECS:
        spec = values.get(key)
        if isinstance(spec, str) and not _DATA_FREE.match(spec) and _CODE.match(spec):
            return spec
    return ""
