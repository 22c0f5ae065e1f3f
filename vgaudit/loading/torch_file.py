"""Opens what ``torch.save`` wrote, with no more trust than it was given."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading.local_file import LocalFile, plain_digest
from vgaudit.loading.refusal import is_user_class, refuse
from vgaudit.loading.survey import Survey
from vgaudit.loading.user_code import add_import_paths, classes, failed
from vgaudit.loading.wording import one_line, shorten

ANY = "yes"


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file held, and the tier that was used to open it."""

    root: Any
    tier: str


def open_file(survey: Survey, options: LoadOptions) -> Opened:
    """Returns the object in a PyTorch file.

    Raises:
        CannotLoad: it needs more trust than ``options`` gives, or is damaged.
    """
    verdict = survey.verdict
    if verdict.tier != "T3":
        return Opened(read_safely(survey, verdict.allowed), verdict.tier)
    if trusted(survey.file, options.trust_pickle):
        add_import_paths(options.import_paths)
        return Opened(unpickle(survey), "T3")
    user = all(is_user_class(name, survey) for name in verdict.unsafe)
    if options.allow_code and user and not verdict.reasons:
        own = classes(list(verdict.unsafe), options.import_paths)
        allowed = (*verdict.allowed, *own)
        return Opened(read_safely(survey, allowed), "T2")
    raise refuse(survey)


def trusted(file: LocalFile, trust_pickle: str) -> bool:
    """Returns whether the user trusts this very file to run code.

    Raises:
        BadConfig: neither ``yes`` nor a digest.
        CannotLoad: the digest is another file's.
    """
    if not trust_pickle:
        return False
    if trust_pickle.lower() == ANY:
        return True
    if plain_digest(trust_pickle) != file.sha256:
        raise CannotLoad(
            f"{file.path} refused: its sha256 is {file.sha256}, "
            "not the one that --trust-pickle names",
            hint="the file changed since it was trusted: get it again",
        )
    return True


def read_safely(survey: Survey, allowed: tuple[tuple[Any, str], ...]) -> Any:
    """Returns the object, made by torch's reader that calls nothing unlisted."""
    path = survey.file.path
    try:
        with (
            survey.open() as stream,
            torch.serialization.safe_globals(list(allowed)),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True, mmap=False)
    except MemoryError as error:
        raise CannotLoad(f"{path} does not fit into memory") from error
    except Exception as error:
        # torch's own texts advise to load unsafely: they are not repeated.
        raise CannotLoad(
            f"{path} cannot be read: torch's safe reader fails on it"
            f" ({type(error).__name__}{detail(error)})",
            hint="the file is damaged or hostile: get it again from its author",
        ) from error


def detail(error: Exception) -> str:
    """Returns the first line of an error, unless it gives advice on loading."""
    line = shorten((str(error).strip().splitlines() or [""])[0], 160)
    advises = "weights_only" in line or "safe_globals" in line
    return f": {line}" if line and not advises else ""


def unpickle(survey: Survey) -> Any:
    """Returns the object; runs whatever code the file asks for (tier T3)."""
    try:
        with survey.open() as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if survey.container == "pickle":
                return pickle.load(stream)  # noqa: S301
            return torch.load(
                stream, map_location="cpu", weights_only=False, mmap=False
            )
    except (ModuleNotFoundError, AttributeError) as error:
        text = one_line(error, 160)
        raise CannotLoad(
            f"{survey.file.path}: its pickle needs code that is not here: {text}",
            hint="add the folder that holds it: --import-path DIR",
        ) from error
    except (Exception, SystemExit) as error:
        raise failed(f"unpickling {survey.file.path}", error) from error
