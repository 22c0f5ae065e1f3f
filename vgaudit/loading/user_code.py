"""The user's own Python: found behind what is installed, imported by name.

Folders are appended to the import path, so that a ``torch.py`` beside a model
never stands in for torch. They stay until the next model is loaded: a model may
import while it runs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.wording import listed, one_line

MAIN = "__main__"
HERE = Path(__file__).parent


class UserFolder(str):
    """An entry of the import path that was put there for a model."""

    __slots__ = ()


def forget_folders() -> None:
    """Takes the folders of the model before off the path, and their modules.

    Two models may each have a ``blocks.py``: the second must not get the
    first's.
    """
    for entry in [e for e in sys.path if isinstance(e, UserFolder)]:
        sys.path.remove(entry)
        home = Path(entry)
        for name in module_names(home).values() if home.is_dir() else ():
            known = sys.modules.get(name)
            if is_inside(getattr(known, "__file__", None), home):
                forget(name)


def forget(name: str) -> None:
    """Removes a module and those inside it from what is imported."""
    for known in list(sys.modules):
        if known == name or known.startswith(f"{name}."):
            del sys.modules[known]


def add_folder(folder: Path) -> str:
    """Puts a folder behind the import path; returns a note on shadowed names.

    Raises:
        BadConfig: there is no such folder.
    """
    if not folder.is_dir():
        raise BadConfig(f"no such folder: {folder}", hint="check --import-path")
    home = folder.resolve()
    if str(home) in sys.path:
        return ""
    sys.path.append(UserFolder(home))
    importlib.invalidate_caches()
    hidden = [f for f, name in module_names(home).items() if is_elsewhere(name, home)]
    if not hidden:
        return ""
    return (
        f"{listed(hidden)} in {folder} are not imported: "
        "installed modules have these names"
    )


def module_names(home: Path) -> dict[str, str]:
    """Returns the modules and packages of a folder, by file name."""
    names = {}
    for path in sorted(home.iterdir()):
        is_package = (path / "__init__.py").exists()
        name = path.name if is_package else path.stem
        importable = is_package or path.suffix == ".py"
        if importable and name.isidentifier() and not name.startswith("__"):
            names[path.name] = name
    return names


def is_elsewhere(name: str, home: Path) -> bool:
    """Returns whether an import of that name would leave the folder."""
    if name in sys.stdlib_module_names:
        return True
    # Asked of the path, not of sys.modules: what is loaded may be another's.
    found = importlib.machinery.PathFinder.find_spec(name)
    return found is not None and not is_inside(found.origin, home)


def is_inside(file: str | None, home: Path) -> bool:
    """Returns whether a file lies in a folder."""
    return file is not None and Path(file).resolve().is_relative_to(home)


def import_module(name: str) -> ModuleType:
    """Returns the module of that name.

    Raises:
        CannotLoad: not found, or it failed while running.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise CannotLoad(
                f"no module named {error.name!r}",
                hint="add the folder that holds it: --import-path DIR",
            ) from error
        raise failed(f"importing {name}", error) from error
    except (Exception, SystemExit) as error:
        raise failed(f"importing {name}", error) from error


def import_file(path: Path) -> ModuleType:
    """Returns a ``.py`` file as a module, under its own name where that is free.

    Raises:
        CannotLoad: it failed while running.
    """
    resolved = path.resolve()
    name = path.stem
    other = sys.modules.get(name)
    mine = other is None or is_inside(getattr(other, "__file__", None), resolved)
    if not (name.isidentifier() and mine) or is_elsewhere(name, resolved.parent):
        digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:8]
        name = f"vgaudit_user_{digest}"
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise CannotLoad(f"{path} is not Python code", hint="name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise failed(f"importing {path}", error) from error
    return module


def failed(what: str, error: BaseException) -> CannotLoad:
    """Returns the error for user code that raised, with the line that did."""
    kind = type(error).__name__
    text = one_line(error, 300)
    if isinstance(error, SystemExit):
        reason = f"{what} called sys.exit({error.code!r})"
    elif isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
        return CannotLoad(f"{what}: {kind} at {place}: {error.msg}", hint="fix it")
    else:
        reason = f"{what} raised {kind}: {text}" if text else f"{what} raised {kind}"
    frames = traceback.extract_tb(error.__traceback__)
    user = [f for f in frames if not f.filename.startswith(("<frozen", str(HERE)))]
    place = f" at {user[-1].filename}:{user[-1].lineno}" if user else ""
    return CannotLoad(reason, hint=f"it failed{place}")


def add_import_paths(import_paths: tuple[str, ...]) -> dict[str, ModuleType]:
    """Appends folders to the import path; returns scripts among them, by name.

    The last script also stands for ``__main__``, under which a pickle names
    the classes of the script that wrote it.
    """
    scripts = {}
    for path in map(Path, import_paths):
        if path.suffix == ".py" and path.is_file():
            add_folder(path.parent)
            scripts[path.stem] = scripts[MAIN] = import_file(path)
        else:
            add_folder(path)
    return scripts


def classes(names: list[str], import_paths: tuple[str, ...]) -> list[tuple[Any, str]]:
    """Returns the classes of those names, defined in the user's own modules.

    Args:
        names: ``module.Class``, outside the standard library.
        import_paths: folders, and scripts that stand for ``__main__``.

    Raises:
        CannotLoad: a module or class is not found, or is none of its module.
    """
    scripts = add_import_paths(import_paths)
    found = []
    for full in names:
        module_name, _, name = full.rpartition(".")
        if module_name == MAIN and MAIN not in scripts:
            raise CannotLoad(
                f"class `{full}` needed: it was defined in a script",
                hint="name the script: --import-path SCRIPT.py --allow-code",
            )
        module = scripts.get(module_name) or import_module(module_name)
        found.append((own_class(module, name, full), full))
    return found


def own_class(module: ModuleType, name: str, full: str) -> type:
    """Returns a class that the module defines itself.

    A class it merely imported, say ``Popen``, is not the user's.
    """
    value = vars(module).get(name)
    if not isinstance(value, type) or value.__module__ != module.__name__:
        raise CannotLoad(
            f"class `{full}` needed, but {module.__name__} defines no such class",
            hint="check that --import-path names the version that saved the model",
        )
    return value
