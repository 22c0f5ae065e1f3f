"""What makes a training the same one when it is resumed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from vgaudit.retraining import RetrainOptions
from vgaudit.training.checkpoint import CONTENTS, VALID_CONTENTS
from vgaudit.training.contents import contents
from vgaudit.training.course import Course
from vgaudit.training.weights import digest, form

WORDS = {"method": "with", "controls": "control"}
"""Options whose word on the command line is another than their name."""


def identity(
    course: Course, model: nn.Module, options: RetrainOptions
) -> dict[str, Any]:
    """Returns what must be the same for a resumed training to be the same one.

    By the words of the command line, since differences are told to the user.
    """
    asked = {
        f"--{WORDS.get(name, name.replace('_', '-'))}": _plain(value)
        for name, value in dataclasses.asdict(options).items()
        # How many processes share the work, and how, changes no step.
        if name not in ("parallel", "settings")
    }
    asked |= {f"--setting {name}": text for name, text in options.settings.items()}
    feed = course.feed
    return {
        "model": type(model).__name__,
        "tensors of the model": _summary(form(model)),
        "weights of the model": digest(model)[:16],
        **asked,
        "--output": course.output,
        "data": feed.train.spec,
        CONTENTS: contents(feed.train),
        VALID_CONTENTS: "" if feed.valid is feed.train else contents(feed.valid),
        "training samples": feed.split.train,
        "validation samples": feed.split.valid,
        "samples of a step": feed.size,
        "loss": course.loss.name,
        "device": course.device.type,
    }


def _summary(lines: Sequence[str]) -> str:
    text = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
    return f"{len(lines)} ({text})"


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
