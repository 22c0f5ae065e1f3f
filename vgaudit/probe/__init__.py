"""Measuring how gradients flow through a model, without touching it."""

from vgaudit.probe.run import probe

__all__ = ["probe"]
