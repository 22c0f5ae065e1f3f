"""Running user code without leaving a trace on the model or the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restores every attribute of every module, containers one level deep.

    Tensors kept as plain attributes are replaced by clones for the time.
    """
    saved = [_save(module) for module in model.modules()]
    try:
        yield
    finally:
        for module, training, attributes, contents in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, content in contents.items():
                _refill(attributes[name], content)
            if module.training is not training:  # a script keeps it elsewhere
                module.training = training


def _save(module: nn.Module) -> tuple[nn.Module, bool, dict[str, Any], dict[str, Any]]:
    attributes = dict(module.__dict__)
    contents = {
        name: value.copy()
        for name, value in attributes.items()
        if type(value) in (dict, OrderedDict, list, set)
    }
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            module.__dict__[name] = value.detach().clone()
    return module, module.training, attributes, contents


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences prints, warnings and the log that a failed fake run writes."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
