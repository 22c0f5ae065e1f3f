"""The line of the model's own code from which a call was made."""

from __future__ import annotations

import sys
from types import FrameType

from torch import nn

from vgaudit.flow import Source

_CALL = nn.Module._call_impl.__code__


def caller(root: nn.Module) -> Source | None:
    """Returns the innermost line outside of torch that led here, inside ``root``.

    Where the forward pass of ``root`` begins the search ends, so that the code
    that runs the model is never named.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL and frame.f_locals.get("self") is root:
            return None
        module = frame.f_globals.get("__name__", "")
        if module != "torch" and not module.startswith(("torch.", "vgaudit.")):
            return Source(file=frame.f_code.co_filename, line=frame.f_lineno)
        frame = frame.f_back
    return None
