"""The Python API: the only part that knows every other.

It runs in the caller's process and raises; the command line does the same work
in a process of its own.
"""

from vgaudit.api.measuring import assert_gradient_healthy, scan, watch
from vgaudit.api.modules import describe, load, save
from vgaudit.api.treating import convert, fix, retrain

__all__ = [
    "assert_gradient_healthy",
    "convert",
    "describe",
    "fix",
    "load",
    "retrain",
    "save",
    "scan",
    "watch",
]
