"""Checks of what a training is asked, before anything is loaded."""

from __future__ import annotations

import math
from typing import Any, get_args

from vgaudit.errors import BadConfig
from vgaudit.ranks import Parallel
from vgaudit.retraining import Amp, RetrainOptions, Schedule
from vgaudit.training import methods
from vgaudit.training.settings import LARGEST

_LEAST: dict[str, float] = {
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "patience": 1,
    "most_skipped": 1,
    "weight_decay": 0.0,
}
_SHARES = ("warmup", "valid_split", "momentum")


def check(options: RetrainOptions, *, validated: bool = False) -> None:
    """Refuses options that cannot be meant.

    Args:
        options: how to train.
        validated: there are validation samples beside the options.

    Raises:
        BadConfig: with the value, and what would be right.
    """
    entry = methods.entry(options)
    _check_numbers(options)
    entry.check(options)
    for text in options.controls:
        own = methods.control(text, options)
        methods.entry(own).check(own)
    choices = {"schedule": Schedule, "amp": Amp, "parallel": Parallel}
    for name, kind in choices.items():
        known = get_args(kind)
        if getattr(options, name) not in known:
            raise _wrong(name, getattr(options, name), f"one of {', '.join(known)}")
    validated = validated or bool(options.valid_split or options.valid_data)
    if options.patience is not None and not validated:
        raise BadConfig(
            "patience needs validation samples",
            hint="leave --valid-split above 0, or give --valid-data",
        )


def _check_numbers(options: RetrainOptions) -> None:
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            raise _wrong(name, value, f"{least:g} or more")
    for name in ("lr", "clip", "weight_decay"):
        value = getattr(options, name)
        if value is not None and LARGEST < value < math.inf:
            raise _wrong(name, value, f"a number up to {LARGEST:g}")
    for name in _SHARES:
        value = getattr(options, name)
        if not 0.0 <= value < 1.0:
            raise _wrong(name, value, "a number from 0 to below 1")
    for name in ("lr", "clip"):
        value = getattr(options, name)
        if value is not None and not 0.0 < value < math.inf:
            raise _wrong(name, value, "a positive number")


def _wrong(name: str, value: Any, wanted: str) -> BadConfig:
    option = name.replace("_", "-")
    return BadConfig(f"--{option} is {value}", hint=f"give {wanted}")
