"""Options that were given and that the treatment has no use for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from vgaudit.plain import visible
from vgaudit.retraining import RetrainOptions
from vgaudit.training.schedule import WARM
from vgaudit.training.settings import TRUE

OF_STEPS = ("lr", "schedule", "warmup", "clip", "weight_decay", "momentum", "amp")
"""Options of optimizer steps on gradients."""

OF_BATCHES = ("batch_size", "accumulate")
RELAXED = ("place", "hidden", "reduction", "weight", "rate")
OF_MODE = {
    "sweep": ("optimizer", "place", "scale", "per"),
    "table": ("optimizer", *RELAXED),
    "infer": ("optimizer", "inner", *RELAXED),
    "reference": (*RELAXED, "steps", "gate", "window", "ridge", "penalty"),
}
"""Settings that each mode of RAI reads."""

OF_CURVATURE = ("every", "curvature_decay")
"""Settings of SDAGD that matter with ``kappa`` alone."""


def unused(options: RetrainOptions) -> tuple[str, ...]:
    """Returns one sentence on what was given and changes nothing, or none.

    Options that have their default are not told from those that were not given.
    """
    names = [f"--{name.replace('_', '-')}" for name in _options(options)]
    names += [f"--setting {visible(name)}" for name in _settings(options)]
    if not names:
        return ()
    verb = "is" if len(names) == 1 else "are"
    listed = ", ".join(names)
    return (f"{listed} {verb} of no use to {_called(options)} and left unused",)


def _called(options: RetrainOptions) -> str:
    if options.method == "rai":
        return f"rai with mode={_mode(options)}"
    return f"{options.method}{' --solver classic' if _is_classic(options) else ''}"


def _options(options: RetrainOptions) -> Iterator[str]:
    """Yields the options that were given and are not read, in their usual order."""
    usual = {field.name: field.default for field in fields(RetrainOptions)}
    names = _unread(options)
    for name in usual:
        if name in names and getattr(options, name) != usual[name]:
            yield name


def _unread(options: RetrainOptions) -> set[str]:
    """Returns the names of options that this treatment does not read."""
    if options.method == "rai" and _mode(options) == "reference":
        return {*OF_STEPS, *OF_BATCHES}
    if _is_classic(options):
        return {*OF_STEPS, "batch_size"}
    names = set() if _has_momentum(options) else {"momentum"}
    return names if options.schedule in WARM else {*names, "warmup"}


def _has_momentum(options: RetrainOptions) -> bool:
    if options.method == "rai":
        return _given(options).get("optimizer", "sgd") == "sgd"
    return options.method == "sgd"


def _settings(options: RetrainOptions) -> Iterator[str]:
    """Yields the settings that were given and are not read."""
    given, mode = _given(options), _mode(options)
    if options.method == "sdagd" and _is_flat(given):
        yield from (name for name in OF_CURVATURE if name in given)
    if options.method != "rai" or mode not in OF_MODE:
        return
    read = {"mode", *OF_MODE[mode]}
    if not _is_on(given.get("gate", "yes")):
        read.discard("window")
    yield from (name for name in given if name not in read)


def _given(options: RetrainOptions) -> dict[str, str]:
    """Returns the settings under the names of their fields."""
    return {key.replace("-", "_"): value for key, value in options.settings.items()}


def _mode(options: RetrainOptions) -> str:
    return visible(_given(options).get("mode", "sweep"))


def _is_on(text: str) -> bool:
    return text.lower() in TRUE


def _is_flat(given: dict[str, str]) -> bool:
    """Tells whether SDAGD takes steps without curvature."""
    kappa = given.get("kappa", "none").lower()
    if kappa == "none":
        return not _is_on(given.get("literal", "no"))
    try:
        return float(kappa) == 0.0
    except ValueError:
        return False


def _is_classic(options: RetrainOptions) -> bool:
    return options.method == "adact" and options.solver == "classic"
