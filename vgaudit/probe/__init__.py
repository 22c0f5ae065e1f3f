"""Measuring how gradients flow through a model, without touching it."""

from vgaudit.probe.run import probe
from vgaudit.probe.structure import structure
from vgaudit.probe.watch import Watch

__all__ = ["Watch", "probe", "structure"]
