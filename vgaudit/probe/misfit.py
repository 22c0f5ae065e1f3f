"""What to do about data that a model does not take, read from the call that failed.

The traceback of a failed call holds the modules that were entered and what they got:
``torch.nn.Module.__call__`` passes on ``args`` and ``kwargs``.
"""

from __future__ import annotations

import inspect
import itertools
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vgaudit.errors import CannotRun
from vgaudit.plain import visible
from vgaudit.probe.naming import class_of
from vgaudit.probe.state import unwrap
from vgaudit.probe.tensors import tensors_in

_OF_TYPES = re.compile(
    r"\bdtypes?\b|\bscalar types?\b|\binput type\b|\bhave the type\b", re.IGNORECASE
)
_OF_INTEGERS = re.compile(r"scalar types: Long, Int\b")
_OF_NAMES = re.compile(r"unexpected keyword argument|missing \d+ required")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a module, as it is found in a traceback."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def misfit_hint(error: BaseException) -> str:
    """Returns how names or types of the data differ from the model's; else nothing."""
    return names_hint(error) or _of_inputs(error) or _of_types(error)


def misfit_place(error: BaseException) -> str:
    """Returns in which module a call failed, on what, and what it takes; else nothing.

    Such as ``n.0 (Linear) on input [64, 5] float32; it takes 6 input features``.
    """
    calls = list(_calls(error))
    if not calls:
        return ""
    whole, last = calls[0].module, calls[-1]
    named = whole.named_modules(remove_duplicate=False)
    path = next((name for name, module in named if module is last.module), "")
    found = itertools.islice(tensors_in((last.args, last.kwargs)), _SHOWN)
    given = ", ".join(f"{list(t.shape)} {_name(t.dtype)}" for t in found)
    where = f"{visible(path) or 'the model'} ({class_of(last.module).__name__})"
    return where + (f" on input {given}" if given else "") + wanted(last.module)


def wanted(module: nn.Module) -> str:
    """Returns how many features or channels a layer takes, as the end of a sentence."""
    return "".join(
        f"; it takes {getattr(module, name)} input {word}"
        for name, word in (("in_features", "features"), ("in_channels", "channels"))
        if hasattr(module, name)
    )


def names_hint(error: BaseException) -> str:
    """Returns which names the data has and which the model takes, if they differ."""
    calls = list(_calls(error))
    if not calls:
        return ""
    call = calls[0]
    whole = call.args[0] if len(call.args) == 1 and not call.kwargs else None
    if isinstance(whole, Mapping):
        names = [str(name) for name in whole]
        differ = isinstance(error, (TypeError, AttributeError, KeyError))
    else:
        names = list(call.kwargs)
        differ = _refuses_its_inputs(error, calls)
    if not differ or not names:
        return ""
    shown = ", ".join(visible(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    told = f"the data has the names {shown}{more}, and "
    if isinstance(error, KeyError):
        return f"{told}{_signature(call.module)} looks for another: add it"
    return (
        f"{told}the model is called as {_signature(call.module)}: "
        "name the inputs so, or give (inputs, labels)"
    )


def _of_inputs(error: BaseException) -> str:
    """Tells how the model is called, if it got too few inputs."""
    calls = list(_calls(error))
    if not calls or not _refuses_its_inputs(error, calls):
        return ""
    return f"the model is called as {_signature(calls[0].module)}: give every input"


def _refuses_its_inputs(error: BaseException, calls: list[_Call]) -> bool:
    """Tells whether the model itself is called wrongly, not what it calls."""
    own = calls[-1].module is calls[0].module
    return own and isinstance(error, TypeError) and _says(_OF_NAMES, error)


def _calls(error: BaseException) -> Iterator[_Call]:
    """Yields the calls of modules that an error came through, the outermost first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals
        owner, args, kwargs = (found.get(name) for name in ("self", "args", "kwargs"))
        if (
            isinstance(owner, nn.Module)
            and isinstance(args, tuple)
            and isinstance(kwargs, dict)
        ):
            yield _Call(owner, args, kwargs)


def _of_types(error: BaseException) -> str:
    """Tells which types inputs and weights have, if the error is about types."""
    call = next(_calls(error), None)
    if call is None or not _says(_OF_TYPES, error):
        return ""
    given = list(dict.fromkeys(t.dtype for t in tensors_in((call.args, call.kwargs))))
    shown = ", ".join(map(_name, given))
    if _says(_OF_INTEGERS, error):
        return f"the inputs are {shown}: give whole numbers, such as x.long()"
    weights = (p.dtype for p in call.module.parameters() if p.is_floating_point())
    own = next(weights, None)
    if own is None or given == [own]:
        return "check the type of the inputs"
    return (
        f"the inputs are {shown} and the weights {_name(own)}: "
        f"give inputs of that type, such as x.to(torch.{_name(own)})"
    )


def _signature(model: nn.Module) -> str:
    """Returns ``LeNet.forward(x, mask=None)``: how it is called, without types."""
    try:
        inner = unwrap(model, live=True)
        found = inspect.signature(inner.forward).parameters.values()
    except (CannotRun, TypeError, ValueError):  # nothing that Python can look into
        return f"{class_of(model).__name__}.forward"
    empty = inspect.Parameter.empty
    shown = ", ".join(str(one.replace(annotation=empty)) for one in found)
    return f"{class_of(inner).__name__}.forward({visible(shown, length=160)})"


def _says(pattern: re.Pattern[str], error: BaseException) -> bool:
    return pattern.search(str(error)) is not None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
