"""Settings of a project: ``[tool.vgaudit]`` in pyproject.toml, or ``vgaudit.toml``.

The command line comes first, then the environment (``VGAUDIT_FAIL_ON``), then the
file, then the defaults. What may run on a machine is decided on the command line
alone: trust flags in a file or in the environment are refused.
"""

from vgaudit.config.read import settings
from vgaudit.config.settings import PRESETS, Settings, TargetSettings

__all__ = ["PRESETS", "Settings", "TargetSettings", "settings"]
