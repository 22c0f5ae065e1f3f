"""Where in the source of a model an activation is called, read from the frames."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType

from torch import nn

from vgaudit.treatments.functions import method_of

Positions = tuple[int | None, int | None, int | None, int | None]
"""First and last line and column of a call, as ``co_positions`` gives them."""

_DEEP = 32
_MACHINERY = frozenset(
    {
        "torch.overrides",
        "torch.nn.functional",
        "torch.nn.modules.module",
        "torch._tensor",
        "torch._jit_internal",
        "torch.utils._contextlib",
        "torch.utils._device",
        "torch.amp.autocast_mode",
        "vgaudit.probe.capture",
        "vgaudit.treatments.recorded",
    }
)
"""Modules whose functions hand a call on and compute nothing besides."""


@dataclass(frozen=True, slots=True)
class Within:
    """A function of the user's own, no method, in which an activation is called.

    Attributes:
        code: the function's. span: where the activation is called in it.
        around: codes of the functions between it and the method: its decorators.
    """

    code: CodeType
    span: Positions
    around: tuple[CodeType, ...] = ()


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where in the source an activation is called.

    Attributes:
        path: the module whose method makes the call.
        code: the method's code.
        span: of the call in it: that of the activation, or of a function around.
        within: that function.
    """

    path: str
    code: CodeType
    span: Positions
    within: Within | None = None


def call_site(
    names: Mapping[int, str], unregistered: Sequence[nn.Module] = ()
) -> CallSite | None:
    """Returns the call in the innermost method of a module that is running.

    None where no method of a module of the model makes it.

    Args:
        names: id of each module of the model → its path.
        unregistered: modules that run inside, made on the fly or kept in a list.
    """
    frame: FrameType | None = sys._getframe(2)
    between: list[tuple[CodeType, Positions]] = []
    for _ in range(_DEEP):
        if frame is None:
            return None
        first = _first_argument(frame)
        path = names.get(id(first)) if isinstance(first, nn.Module) else None
        if path is not None:
            if _home(frame) == nn.Module.__module__:
                return None
            if method_of(type(first), frame.f_code) is not None:
                return CallSite(path, frame.f_code, _span(frame), _within(between))
        if _home(frame) not in _MACHINERY and not any(first is m for m in unregistered):
            between.append((frame.f_code, _span(frame)))
        frame = frame.f_back
    return None


def _within(between: list[tuple[CodeType, Positions]]) -> Within | None:
    if not between:
        return None
    (code, span), *rest = between
    return Within(code, span, tuple(around for around, _ in rest))


def _span(frame: FrameType) -> Positions:
    positions = list(frame.f_code.co_positions())
    return positions[frame.f_lasti // 2]


def _first_argument(frame: FrameType) -> object:
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return frame.f_locals.get(names[0]) if names else None


def _home(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
