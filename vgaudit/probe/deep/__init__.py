"""The extra measurements of ``scan --deep``, and what a static scan reads."""

from vgaudit.probe.deep.measure import deepen

__all__ = ["deepen"]
