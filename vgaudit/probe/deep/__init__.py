"""The extra measurements of ``scan --deep``, and what a static scan reads."""

from vgaudit.probe.deep.measure import deepen
from vgaudit.probe.deep.static import static

__all__ = ["deepen", "static"]
