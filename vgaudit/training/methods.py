"""The methods of training, in one table.

A method is added by its module and its line in ``entry``. The RAI compiler and the
closed-form AdAct solver are packages of their own, ``vgaudit.training.rai`` and
``vgaudit.training.adact``: each offers ``ENTRY``, an ``Entry`` of ``method``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from torch import nn

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import PiecewiseLinear
from vgaudit.plain import nearest, visible
from vgaudit.retraining import METHODS, RetrainOptions, Solver
from vgaudit.training import optimizers
from vgaudit.training.method import Entry, Prepared
from vgaudit.training.settings import LARGEST, names_of, unknown_setting
from vgaudit.treatments import treat

CONTROLS = ("adam", "adamw", "sgd", "centred-adam", "sdagd", "readout")
"""What may train beside a treatment."""


def entry(options: RetrainOptions) -> Entry:
    """Returns the entry of the method that the options name.

    Raises:
        BadConfig: there is no such method, or it has no such solver.
    """
    if options.solver not in get_args(Solver):
        raise _unknown("solver", options.solver, get_args(Solver))
    if options.solver == "classic" and options.method != "adact":
        raise BadConfig(
            f"{options.method} has no classic solver",
            hint="--solver classic belongs to --with adact",
        )
    if options.method == "rai":
        from vgaudit.training.rai import ENTRY as relaxed

        return relaxed
    if options.method == "adact" and options.solver == "classic":
        from vgaudit.training.adact import ENTRY as classic

        return classic
    found = _GRADIENT.get(str(options.method))
    if found is None:
        raise _unknown("method", str(options.method), METHODS)
    return found


def control(text: str, options: RetrainOptions) -> RetrainOptions:
    """Returns the options of a control: ``adam``, or ``adam:lr=0.003,beta1=0.8``.

    Data, budget, schedule and seed are those of the treatment.

    Raises:
        BadConfig: no such control, or a setting has no valid form.
    """
    name, _, rest = text.partition(":")
    if name not in CONTROLS:
        raise _unknown("control", name, CONTROLS)
    settings = {}
    for part in filter(None, rest.split(",")):
        key, separator, value = part.partition("=")
        if not separator:
            raise BadConfig(
                f"control {visible(text)}: '{visible(part)}' is not NAME=VALUE",
                hint="for example --control adam:lr=0.003",
            )
        settings[key.strip()] = value.strip()
    _check_settings(name, settings, options)
    lr = _rate(settings.pop("lr", None), text)
    # The table of controls is wider than the methods that the user may train with.
    method: object = name
    return replace(
        options,
        method=method,  # type: ignore[arg-type]
        solver="gradient",
        lr=lr,
        settings=settings,
        controls=(),
    )


def _check_settings(
    name: str, given: Mapping[str, str], options: RetrainOptions
) -> None:
    """Refuses settings that a control has not; each has a learning rate.

    Raises:
        BadConfig: with those that it has.
    """
    bare = replace(options, solver="gradient", settings={})
    known = ["lr", *names_of(_GRADIENT[name].check(bare))]
    for key in given:
        if key.replace("-", "_") not in known:
            raise unknown_setting(key, known, f"control {name}")


def _rate(value: str | None, text: str) -> float | None:
    if value is None:
        return None
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not 0.0 < rate <= LARGEST:
        raise BadConfig(
            f"control {visible(text)}: lr is '{visible(value)}'",
            hint=f"give a positive number up to {LARGEST:g}",
        )
    return rate


def with_activations(
    model: nn.Module, batches: Sequence[Batch], _options: RetrainOptions
) -> Prepared:
    """Returns a model with trainable activations: its own, or converted ones.

    Raises:
        CannotRewrite: no activation can be converted.
    """
    found = sum(isinstance(module, PiecewiseLinear) for module in model.modules())
    if found:
        note = f"trains {found} piecewise linear activations with the weights"
        return Prepared(model, (note,))
    try:
        treated = treat(model, batches, ConvertOptions(to="adact"))
    except CannotRewrite as error:
        # The hint of a conversion names its own options, which a training has not.
        raise CannotRewrite(error.message, hint=_without_adact(model)) from error
    note = (
        f"the model had no trainable activation: {len(treated.edits)} were converted "
        "to piecewise linear ones first, as by `vgaudit convert --to adact`"
    )
    return Prepared(treated.model, (note, *treated.notes), came=model)


def _without_adact(model: nn.Module) -> str:
    """Returns what to do with a model of which no activation can be converted."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return (
            "`vgaudit convert MODEL --to adact --unfuse --data DATA -o OUT.safetensors`"
            " opens it; then train OUT.safetensors"
        )
    return "train it with --with sdagd or adam"


def _unknown(what: str, name: str, known: Sequence[str]) -> BadConfig:
    return BadConfig(
        f"no {what} is called '{visible(name)}'",
        hint=f"{nearest(name, known)}known: {', '.join(known)}",
    )


_GRADIENT: dict[str, Entry] = {
    "adact": Entry(
        build=optimizers.adam,
        prepare=with_activations,
        check=optimizers.adam_settings,
    ),
    "adam": Entry(build=optimizers.adam, check=optimizers.adam_settings),
    "adamw": Entry(build=optimizers.adamw, check=optimizers.adam_settings),
    "centred-adam": Entry(build=optimizers.centred_adam, check=optimizers.no_settings),
    "readout": Entry(build=optimizers.readout, check=optimizers.adam_settings),
    "sdagd": Entry(build=optimizers.sdagd, check=optimizers.sdagd_settings),
    "sgd": Entry(build=optimizers.sgd, check=optimizers.sgd_settings),
}
