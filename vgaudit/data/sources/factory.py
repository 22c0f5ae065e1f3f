"""``file.py:factory`` and ``package.module:factory``: data made by code.

Typing the name is the consent to run it; nothing else in a spec runs code.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from vgaudit.data.seeding import private_random
from vgaudit.data.sources.content import Content, Source
from vgaudit.data.sources.local import regular_file
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

_SPEC = re.compile(r"(?P<place>.+):(?P<name>[A-Za-z_]\w*)", re.DOTALL)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def matches(spec: str) -> bool:
    """Tells whether a spec names something in a Python file or module."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        return False
    place = match["place"]
    return place.endswith(".py") or _MODULE.fullmatch(place) is not None


def load_object(spec: str) -> Any:
    """Returns what ``file.py:name`` or ``package.module:name`` names.

    Raises:
        CannotLoad: the file or module fails, or has no such name.
    """
    place, _, name = spec.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _from_package(place)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise CannotLoad(
            f"{visible(place)} has no {visible(name)}",
            hint=f"it has: {', '.join(public[:12])}" if public else "",
        )
    return getattr(module, name)


def open_factory(spec: str, seed: int) -> Content:
    """Returns the data that a factory makes, seeded.

    Raises:
        CannotLoad: the code fails, needs arguments, or makes something else
            than a data set, a loader, batches or tensors.
    """
    made = load_object(spec)
    is_data = isinstance(made, (Dataset, DataLoader, Tensor, tuple, list, Mapping))
    if callable(made) and not is_data:
        with _running(f"{visible(spec)}()"), private_random(seed, "factory"):
            made = made()
    return content_of(made, f"{visible(spec)}")


def content_of(made: Any, where: str) -> Content:
    """Returns data that code made: whole tensors, samples by number, or batches.

    Raises:
        CannotLoad: it is none of these.
    """
    if isinstance(made, (DataLoader, IterableDataset)):
        return Content(stream=made)
    if isinstance(made, Tensor):
        return Content(samples=TensorDataset(made))
    if isinstance(made, tuple) and made and all(isinstance(t, Tensor) for t in made):
        if len({t.shape[:1] for t in made}) > 1:
            rows = " and ".join(str(len(tensor)) for tensor in made)
            raise CannotLoad(f"{where} gives tensors with {rows} rows")
        return Content(samples=TensorDataset(*made))
    if isinstance(made, Mapping):
        return Content(stream=[made])
    if isinstance(made, Dataset):
        return Content(samples=made)  # type: ignore[arg-type]
    if isinstance(made, nn.Module) or not isinstance(made, Iterable):
        raise CannotLoad(
            f"{where} gives {type(made).__name__}, which is no data",
            hint="return a Dataset, a DataLoader, batches, or tensors (inputs, labels)",
        )
    return Content(stream=made)


def _from_file(place: str) -> Any:
    path = regular_file(place).resolve()
    name = f"_vgaudit_data_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CannotLoad(f"{visible(place)} is not a Python file")
    folder = str(path.parent)
    if folder not in sys.path:  # at the end: a torch.py beside it shadows nothing
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look it up there
    try:
        with _running(visible(place)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_package(place: str) -> Any:
    with _running(visible(place)):
        return importlib.import_module(place)


@contextlib.contextmanager
def _running(what: str) -> Iterator[None]:
    """Sends prints of user code to stderr and turns its failures into ours."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except CannotLoad:
        raise
    except ModuleNotFoundError as error:
        raise CannotLoad(
            f"{what}: no module is called '{visible(str(error.name))}'",
            hint="install it, or name a file: path/to/file.py:factory",
        ) from None
    except SystemExit as error:
        raise CannotLoad(f"{what} calls sys.exit({error.code!r})") from None
    except Exception as error:
        name = type(error).__name__
        raise CannotLoad(f"{what} raises {name}: {visible(str(error))}") from error


SOURCE = Source("file.py:factory", matches, open_factory)
