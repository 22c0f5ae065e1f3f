"""What a refused pickle is told: what it asked for, its digest, the way out."""

from __future__ import annotations

import sys

from vgaudit.errors import CannotLoad
from vgaudit.loading.survey import Survey
from vgaudit.loading.trust import PACKAGES
from vgaudit.loading.wording import listed

MAIN = "__main__"


def refuse(survey: Survey) -> CannotLoad:
    """Returns the error for a pickle that needs more trust than it was given.

    Where all it lacks are classes of the user's own, tier T2 is enough and is
    named; otherwise tier T3.
    """
    unsafe = list(survey.verdict.unsafe)
    reasons = list(survey.verdict.reasons)
    foreign = [
        name for name in unsafe if top(name) in PACKAGES and top(name) != "torch"
    ]
    if unsafe and foreign == unsafe and not reasons:
        return needs_package(survey, foreign)
    if unsafe and not reasons and all(is_user_class(n, survey) for n in unsafe):
        return needs_classes(survey, unsafe)
    if unsafe:
        plural = "s" if len(unsafe) > 1 else ""
        reasons.insert(0, f"needs global{plural} {listed(unsafe)}")
    digest = survey.file.sha256
    return CannotLoad(
        f"{survey.file.path} refused: {'; '.join(reasons)} (tier T3, sha256 {digest})",
        hint="loading it would run code from the file: ask its author for safetensors "
        "or a state_dict; if you trust every byte of it, "
        f"--trust-pickle=sha256:{digest}",
    )


def is_user_class(name: str, survey: Survey) -> bool:
    """Returns whether the pickle makes an object of a class outside the library."""
    return (
        name in survey.facts.created
        and name not in survey.facts.called
        and top(name) not in sys.stdlib_module_names - {MAIN}
        and top(name) not in PACKAGES
    )


def top(name: str) -> str:
    """Returns the package that a name belongs to."""
    return name.partition(".")[0]


def needs_package(survey: Survey, names: list[str]) -> CannotLoad:
    """Returns the error for classes of a library that is not here as needed."""
    package = top(names[0])
    return CannotLoad(
        f"{survey.file.path} refused: it needs {listed(names)}, and no {package} "
        f"that can be imported here has it (tier T1, sha256 {survey.file.sha256})",
        hint=f"install the release of {package} that saved it, or save its "
        "state_dict and give --arch",
    )


def needs_classes(survey: Survey, names: list[str]) -> CannotLoad:
    """Returns the error for a pickled module of the user's own classes."""
    plural = "es" if len(names) > 1 else ""
    quoted = listed([f"`{name}`" for name in names])
    module = names[0].rpartition(".")[0]
    if module == MAIN:
        where = "SCRIPT.py, the script that defines it"
        place = "SCRIPT.py"
    else:
        where = f"DIR, the folder that holds {top(module)}"
        place = "DIR"
    return CannotLoad(
        f"{survey.file.path} refused: class{plural} {quoted} needed "
        f"(tier T2, sha256 {survey.file.sha256})",
        hint=f"add --import-path {place} --allow-code, with {where}; "
        "or save its state_dict and give --arch",
    )
