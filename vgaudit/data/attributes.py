"""Putting back what user code changes on modules: their classes and attributes.

Attributes are put back by reference, and the contents of lists, dicts, sets,
deques and numpy arrays in them however deep; the inside of other objects is
not followed. Lazy modules change their class; scripts keep their mode elsewhere.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

_CONTAINERS = (list, dict, set, deque)


class Attributes:
    """The attributes of some modules, as they were when this was made."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = [
            (module, type(module), module.training, dict(module.__dict__))
            for module in modules
        ]
        self._contents: list[tuple[Any, Any]] = []
        # Most are tables of hooks without any, a dozen in each module.
        self._empty: list[Any] = []
        numpy = sys.modules.get("numpy")
        self._array: Any = numpy.ndarray if numpy else ()
        seen: set[int] = set()
        for *_, attributes in self._modules:
            self._keep(attributes.values(), seen)

    def _keep(self, values: Iterable[Any], seen: set[int]) -> None:
        """Copies all containers that can be reached, each once."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if isinstance(value, tuple):
                waiting.extend(value)
            elif not isinstance(value, (*_CONTAINERS, self._array)):
                continue
            elif id(value) not in seen:
                seen.add(id(value))
                waiting.extend(self._copied(value))

    def _copied(self, value: Any) -> Iterable[Any]:
        """Notes what one container holds, and returns what may be containers in it."""
        if isinstance(value, self._array):
            self._contents.append((value, value.copy()))
            return ()
        if not value:
            self._empty.append(value)
            return ()
        pairs = isinstance(value, dict)
        self._contents.append((value, list(value.items() if pairs else value)))
        inner: Iterable[Any] = value.values() if pairs else value
        return inner

    def spare_tensors(self) -> None:
        """Puts clones in the place of tensors that are plain attributes."""
        for module, *_, attributes in self._modules:
            for name, value in attributes.items():
                if isinstance(value, Tensor):
                    module.__dict__[name] = value.detach().clone()

    def restore(self) -> None:
        """Puts everything back."""
        for module, kind, training, attributes in self._modules:
            if type(module) is not kind:
                module.__class__ = kind
            for name in [name for name in module.__dict__ if name not in attributes]:
                del module.__dict__[name]
            module.__dict__.update(attributes)
            if module.training is not training:  # a script keeps it elsewhere
                module.training = training
        for value in self._empty:
            if value:
                value.clear()
        for value, content in self._contents:
            if isinstance(value, self._array):
                value[...] = content
            elif _differs(value, content):
                _refill(value, content)


def _differs(value: Any, content: list[Any]) -> bool:
    """Compares a container by identity of its items: tensors have no truth."""
    if len(value) != len(content):
        return True
    if isinstance(value, dict):
        pairs = zip(value.items(), content, strict=True)
        return any(a is not c or b is not d for (a, b), (c, d) in pairs)
    if isinstance(value, set):
        return not value.issuperset(content)
    return any(a is not b for a, b in zip(value, content, strict=True))


def _refill(value: Any, content: list[Any]) -> None:
    value.clear()
    if isinstance(value, dict):
        for key, item in content:
            value[key] = item
    elif isinstance(value, set):
        value.update(content)
    else:
        value.extend(content)
