"""Programs of ``torch.export``: checked as data, then turned into modules."""

from vgaudit.loading.exported.load import load, matches

__all__ = ["load", "matches"]
