"""What the worker may do: the limits that the operating system holds it to.

Standard library only: the sandbox closes before torch is imported.
"""

from vgaudit.sandbox.closing import OPEN, close
from vgaudit.sandbox.environment import environment
from vgaudit.sandbox.landlock import version as landlock_version
from vgaudit.sandbox.rules import Rules

__all__ = ["OPEN", "Rules", "close", "environment", "landlock_version"]
