"""Where a finding is: a file and a line that other tools can open."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from vgaudit.findings import Finding
from vgaudit.flow import Audit

_SCHEME = re.compile(r"^(torchvision|timm|hf):")
_FACTORY = re.compile(r"^(.*\.py):[A-Za-z_][\w.]*$")


@dataclass(frozen=True, slots=True)
class Place:
    """A file, relative to the working folder where it lies in it, and a line."""

    file: str
    line: int


def place(finding: Finding, audit: Audit | None) -> Place:
    """Returns the line of code that a finding is about; the model where none is known.

    Args:
        finding: what was found.
        audit: of the model it was found in.
    """
    if finding.source is not None:
        return Place(_relative(finding.source.file), max(finding.source.line, 1))
    spec = audit.target.spec if audit is not None else "model"
    return Place(_relative(_file(spec)), 1)


def _file(spec: str) -> str:
    """Returns the file that a model spec names, or the spec where it names none."""
    if _SCHEME.match(spec):
        return spec
    path = spec.partition("#")[0]
    factory = _FACTORY.match(path)
    return factory[1] if factory else path


def _relative(file: str) -> str:
    path, root = file.replace("\\", "/"), os.getcwd().replace("\\", "/")
    inside = path.startswith(f"{root.rstrip('/')}/")
    return path[len(root.rstrip("/")) + 1 :] if inside else path
