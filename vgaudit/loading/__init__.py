"""Loading: from a file, a zoo or code to a module, by tiers of trust.

Nothing here executes what a file holds, unless the user allowed it: see
``vgaudit.loading.trust`` for the tiers. torchvision, timm and transformers are
imported only where a model needs them.
"""

from __future__ import annotations

from vgaudit.loading.inspect_spec import inspect
from vgaudit.loading.inspection import Inspection
from vgaudit.loading.loaded import ExampleInput, InputHint, LoadedModel
from vgaudit.loading.loaders import LOADERS, load

__all__ = [
    "LOADERS",
    "ExampleInput",
    "InputHint",
    "Inspection",
    "LoadedModel",
    "inspect",
    "load",
]
