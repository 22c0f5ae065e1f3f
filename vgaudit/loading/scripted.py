"""TorchScript: compiled code, loaded only where the user allows it."""

from __future__ import annotations

import warnings

import torch

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading.archive import classify, examine_archive, members_of
from vgaudit.loading.loaded import LoadedModel, Origin, finish
from vgaudit.loading.local_file import examine
from vgaudit.loading.spec import Spec
from vgaudit.loading.wording import one_line

NOTE = "TorchScript: only the gradients of its parameters can be measured"
HINT = (
    "--allow-code runs it and measures its parameters' gradients; for layers and "
    "activations pass the eager model by a factory, file.py:factory"
)


def matches(spec: Spec) -> bool:
    """Returns whether a specification names an archive of ``torch.jit.save``."""
    return classify(members_of(spec.path))[0] == "torchscript"


def load(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the module of a TorchScript archive.

    Raises:
        CannotLoad: it was not allowed, or is damaged.
    """
    assert spec.path is not None
    file = examine(spec.path, options.sha256)
    archive = examine_archive(file)
    if not options.allow_code:
        raise CannotLoad(
            f"{file.path} is TorchScript, which is compiled code (tier T2, sha256 "
            f"{file.sha256})",
            hint=HINT,
        )
    try:
        with file.open() as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(stream, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise CannotLoad(
            f"{file.path}: torch {torch.__version__} cannot load it: "
            f"{one_line(error, 160)}",
            hint="script the model again with this version of torch",
        ) from error
    origin = Origin(
        spec=spec.text,
        format="torchscript",
        tier="T2",
        sha256=file.sha256,
        notes=(NOTE,),
        archive_notes=archive.notes,
    )
    name = getattr(module, "original_name", "") or "TorchScript"
    return finish(module, origin, architecture=name)
