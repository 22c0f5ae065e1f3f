"""The user's own Python: found behind what is installed, imported by name.

Folders are appended to the import path, so that a ``torch.py`` beside a model
never stands in for torch. They stay there: a model may import while it runs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.tensors import listed

MAIN = "__main__"
HERE = Path(__file__).parent


def add_folder(folder: Path) -> str:
    """Appends a folder to the import path; returns a note on shadowed names.

    Raises:
        BadConfig: there is no such folder.
    """
    if not folder.is_dir():
        raise BadConfig(f"no such folder: {folder}", hint="check --import-path")
    resolved = str(folder.resolve())
    hidden = shadowed(folder) if resolved not in sys.path else []
    if resolved not in sys.path:
        sys.path.append(resolved)
    if not hidden:
        return ""
    return (
        f"{listed(hidden)} in {folder} are not imported: "
        "installed modules have these names"
    )


def shadowed(folder: Path) -> list[str]:
    """Returns files and packages of a folder that installed modules hide."""
    found = []
    home = folder.resolve()
    for path in sorted(home.iterdir()):
        is_package = (path / "__init__.py").exists()
        name = path.name if is_package else path.stem
        if not (is_package or path.suffix == ".py") or not name.isidentifier():
            continue
        if is_elsewhere(name, home):
            found.append(path.name)
    return found


def is_elsewhere(name: str, home: Path) -> bool:
    """Returns whether a module of that name would come from outside a folder."""
    if name in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name in sys.modules
    if found is None:
        return False
    return found.origin is None or not Path(found.origin).resolve().is_relative_to(home)


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
    if not name.isidentifier() or is_elsewhere(name, resolved):
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
    text = " ".join(str(error).split())[:300]
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
