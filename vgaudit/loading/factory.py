"""``path/file.py:factory`` and ``package.module:factory``: the user's own code."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vgaudit.errors import BadConfig, CannotLoad, UnknownSource, VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import user_code
from vgaudit.loading.built import Built, arguments
from vgaudit.loading.local_file import examine
from vgaudit.loading.seeding import seeded
from vgaudit.loading.spec import Spec, existing, no_such_file
from vgaudit.plain import kind_of

PYTHON = ".py"


@dataclass(frozen=True, slots=True)
class Code:
    """A module of the user's, its file's digest and what was noticed."""

    module: ModuleType
    sha256: str | None
    notes: tuple[str, ...]


def matches(spec: Spec) -> bool:
    """Returns whether the specification names a factory in Python code."""
    if spec.path is not None:
        return spec.path.suffix == PYTHON and not spec.path.is_dir()
    place, colon, name = spec.body.rpartition(":")
    if not colon:
        return spec.body.endswith(PYTHON)
    dotted = all(part.isidentifier() for part in place.split("."))
    named = all(part.isidentifier() for part in name.split("."))
    return place.endswith(PYTHON) or (dotted and named)


def build(spec: Spec, options: LoadOptions, *, on_meta: bool = False) -> Built:
    """Returns what the factory returns, seeded.

    The user's code runs as it is, never on the meta device.

    Raises:
        BadConfig: arguments that the factory does not take.
        CannotLoad: the code cannot be imported, raises, or returns no module.
        UnknownSource: no factory is named, or the module has none of the name.
    """
    place, _, name = spec.body.rpartition(":")
    if spec.path is not None or not place:
        raise unnamed(spec)
    with seeded(options.seed):
        code = import_place(place, options)
        module = call(find(code.module, name, place), spec.body, options)
    return Built(
        module=module,
        name=f"{type(module).__name__}",
        format="factory",
        tier="T2",
        sha256=code.sha256,
        notes=code.notes,
    )


def import_place(place: str, options: LoadOptions) -> Code:
    """Returns the module that ``place`` names: a file, or a dotted name."""
    notes = [note for p in options.import_paths if (note := add_path(Path(p)))]
    if place.endswith(PYTHON):
        path = Path(place)
        if existing(place) is None:
            raise no_such_file(path)
        digest = examine(path, options.sha256).sha256
        note = user_code.add_folder(path.parent)
        notes += [note] if note else []
        return Code(user_code.import_file(path), digest, tuple(notes))
    user_code.add_folder(Path(os.curdir))
    return Code(user_code.import_module(place), None, tuple(notes))


def add_path(path: Path) -> str:
    """Appends a folder, or a file's folder, to the import path."""
    return user_code.add_folder(path.parent if path.suffix == PYTHON else path)


def find(module: ModuleType, name: str, place: str) -> Any:
    """Returns the factory of that name; dots go into classes.

    Raises:
        UnknownSource: there is none; names what there is.
    """
    value: Any = module
    for part in name.split("."):
        if part not in dir(value):
            names = [n for n, v in vars(module).items() if is_factory(n, v, module)]
            hint = f"it has {', '.join(names[:8])}" if names else "it has no factory"
            raise UnknownSource(f"{place} has no {name!r}", hint=hint)
        value = getattr(value, part)
    return value


def is_factory(name: str, value: Any, module: ModuleType) -> bool:
    """Returns whether a name of a module may be meant as a factory."""
    own = getattr(value, "__module__", None) == module.__name__
    return callable(value) and own and not name.startswith("_")


def call(factory: Any, text: str, options: LoadOptions) -> nn.Module:
    """Returns the module that the factory makes, or that it is.

    Raises:
        CannotLoad: it needs more arguments, raises, exits, or returns
            something else.
    """
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise wrong_type(text, "is", factory)
    values = arguments(options.model_args)
    check_arguments(factory, text, values)
    try:
        made = factory(**values)
    except (Exception, SystemExit) as error:
        raise user_code.failed(text, error) from error
    if not isinstance(made, nn.Module):
        raise wrong_type(text, "returned", made)
    return made


def check_arguments(
    factory: Callable[..., Any], text: str, values: dict[str, Any]
) -> None:
    """Compares the arguments with the factory's signature.

    Raises:
        BadConfig: an argument it does not take.
        CannotLoad: arguments that are missing.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):  # built in: nothing to compare with
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    unknown = [name for name in values if name not in names]
    if unknown and not open_ended:
        raise BadConfig(
            f"{text} takes no argument {unknown[0]!r}",
            hint=f"it takes {', '.join(names) or 'none'}",
        )
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in values
    ]
    if missing:
        raise CannotLoad(
            f"{text} needs arguments: {', '.join(missing)}",
            hint=" ".join(f"--model-arg {name}=VALUE" for name in missing),
        )


def wrong_type(text: str, verb: str, value: object) -> CannotLoad:
    """Returns the error for something that is no module."""
    return CannotLoad(
        f"{text} {verb} {kind_of(value)}, not a torch.nn.Module",
        hint="name a factory that returns the model",
    )


def unnamed(spec: Spec) -> VgauditError:
    """Returns the error for a Python file without a factory, naming what it has."""
    path = Path(spec.body)
    if spec.path is None:
        return no_such_file(path)
    names = top_level_names(path)
    hint = f"add one of its names: {path}:{'|'.join(names)}"
    if not names:
        hint = "it defines no function and no class"
    return UnknownSource(f"{path} is Python code, and no factory named", hint=hint)


def top_level_names(path: Path) -> list[str]:
    """Returns the first functions and classes of a file, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in tree.body if isinstance(node, kinds)]
    return [name for name in names if not name.startswith("_")][:8]
