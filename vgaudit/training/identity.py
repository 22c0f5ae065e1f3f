"""What makes a training the same one when it is resumed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from vgaudit.retraining import RetrainOptions
from vgaudit.training.course import Course
from vgaudit.training.weights import digest, form


def identity(
    course: Course, model: nn.Module, options: RetrainOptions
) -> dict[str, Any]:
    """Returns what must be the same for a resumed training to be the same one.

    By the words of the command line, since differences are told to the user.
    """
    asked = {
        f"--{name.replace('_', '-')}": _plain(value)
        for name, value in dataclasses.asdict(options).items()
        # How many processes share the work, and how, changes no step.
        if name != "parallel"
    }
    feed = course.feed
    return {
        "model": type(model).__name__,
        "tensors of the model": _summary(form(model)),
        "weights of the model": digest(model)[:16],
        **asked,
        "data": feed.train.spec,
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
    return list(value) if isinstance(value, tuple) else value
