"""An architecture that bare weights may belong to, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading import torchvision_zoo
from vgaudit.loading.fit import shapes
from vgaudit.loading.keys import Shape, unwrap
from vgaudit.loading.spec import Spec

COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Guess:
    """A torchvision model, and the arguments that it takes."""

    name: str
    arguments: dict[str, str]

    @property
    def spec(self) -> str:
        """The architecture as a model specification."""
        return f"{torchvision_zoo.SCHEME}:{self.name}"

    def __str__(self) -> str:
        """The specification with its arguments."""
        extra = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.spec} ({extra})" if extra else self.spec


def bare(given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes by keys without wrappers and without a common prefix."""
    keys = {unwrap(key): shape for key, shape in given.items()}
    while keys and all("." in key for key in keys):
        if len({key.partition(".")[0] for key in keys}) > 1:
            break
        keys = {key.partition(".")[2]: shape for key, shape in keys.items()}
    return keys


def without_counters(given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes without batch counters, which frozen norms lack."""
    return {key: shape for key, shape in given.items() if not key.endswith(COUNTER)}


def signature(guess: Guess) -> dict[str, Shape] | None:
    """Returns the keys and shapes of an architecture, without memory if it can."""
    spec = Spec(text=guess.spec, body=guess.spec, key=None, path=None)
    options = LoadOptions(model_args=guess.arguments)
    for on_meta in (True, False):  # one builder computes with its weights
        try:
            built = torchvision_zoo.build(spec, options, on_meta=on_meta)
        except CannotLoad:
            continue
        return without_counters(shapes(built.module.state_dict()))
    return None
