"""The gradient methods: which optimizer each takes, with which settings."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW

from vgaudit.data.batch import Loss
from vgaudit.data.losses import settled
from vgaudit.data.losses.compare import classify
from vgaudit.data.losses.divisors import CLASSES
from vgaudit.data.losses.outputs import main_output
from vgaudit.errors import BadConfig
from vgaudit.nn import PiecewiseLinear
from vgaudit.optim import SDAGD, CenteredAdam
from vgaudit.retraining import RetrainOptions
from vgaudit.training.gradient import GradientTraining, Watch
from vgaudit.training.method import Method, Setup
from vgaudit.training.readout import last_layer
from vgaudit.training.settings import check_positive, read_settings

ADAM_LR, SGD_LR = 1e-3, 0.1
CURVED = ("cross-entropy", "nll", "mse", "bce-with-logits")
"""Losses whose curvature SDAGD knows by name."""


@dataclass(frozen=True, slots=True)
class NoSettings:
    """A method with nothing to set."""


@dataclass(frozen=True, slots=True)
class AdamSettings:
    """Of Adam and AdamW."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class SgdSettings:
    """Of SGD."""

    nesterov: bool = False


@dataclass(frozen=True, slots=True)
class SdagdSettings:
    """Of SDAGD; None takes its own default."""

    momentum: float | None = None
    norm_decay: float | None = None
    centring: bool | None = None
    kappa: float | None = None
    every: int = 10
    curvature_decay: float = 0.95
    solve: Literal["agd", "trust"] = "agd"
    adapt: bool | None = None
    scope: Literal["tensor", "layer", "global"] | None = None
    radius: Literal["relative", "absolute"] | None = None
    literal: bool = False


def adam_settings(options: RetrainOptions) -> AdamSettings:
    """Returns the settings of a method that is Adam.

    Raises:
        BadConfig: one is unknown, no number, or out of its range.
    """
    own = read_settings(AdamSettings, options.settings, method=options.method)
    for name, value in (("beta1", own.beta1), ("beta2", own.beta2)):
        if not 0.0 <= value < 1.0:
            raise BadConfig(
                f"setting {name} of {options.method} is {value:g}",
                hint="give a number from 0 to below 1",
            )
    check_positive(own, ["eps"], method=options.method)
    return own


def sgd_settings(options: RetrainOptions) -> SgdSettings:
    """Returns the settings of SGD.

    Raises:
        BadConfig: one is unknown, or needs momentum.
    """
    own = read_settings(SgdSettings, options.settings, method=options.method)
    if own.nesterov and not options.momentum:
        raise BadConfig("nesterov needs momentum", hint="leave --momentum above 0")
    return own


def sdagd_settings(options: RetrainOptions) -> SdagdSettings:
    """Returns the settings of SDAGD.

    Raises:
        BadConfig: one is unknown, or no such value.
    """
    return read_settings(SdagdSettings, options.settings, method=options.method)


def no_settings(options: RetrainOptions) -> NoSettings:
    """Returns the settings of a method that has none.

    Raises:
        BadConfig: one was given.
    """
    return read_settings(NoSettings, options.settings, method=options.method)


def adam(setup: Setup) -> Method:
    """Returns Adam, as torch has it."""
    own = adam_settings(setup.options)
    return GradientTraining(setup, _adam(setup, own, setup.model.parameters()))


def _adam(setup: Setup, own: AdamSettings, params: Any) -> Adam:
    options = setup.options
    return Adam(
        list(params),
        lr=ADAM_LR if options.lr is None else options.lr,
        betas=(own.beta1, own.beta2),
        eps=own.eps,
        weight_decay=options.weight_decay,
    )


def adamw(setup: Setup) -> Method:
    """Returns AdamW; what has a scale of its own does not decay."""
    own = adam_settings(setup.options)
    options = setup.options
    optimizer = AdamW(
        _groups(setup.model, options.weight_decay),
        lr=ADAM_LR if options.lr is None else options.lr,
        betas=(own.beta1, own.beta2),
        eps=own.eps,
    )
    return GradientTraining(setup, optimizer)


def sgd(setup: Setup) -> Method:
    """Returns SGD with momentum."""
    own = sgd_settings(setup.options)
    options = setup.options
    optimizer = SGD(
        list(setup.model.parameters()),
        lr=SGD_LR if options.lr is None else options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=own.nesterov,
    )
    return GradientTraining(setup, optimizer)


def centred_adam(setup: Setup) -> Method:
    """Returns Adam on centred gradients: the control that belongs beside SDAGD."""
    no_settings(setup.options)
    options = setup.options
    optimizer = CenteredAdam(
        setup.model.named_parameters(),
        lr=ADAM_LR if options.lr is None else options.lr,
        weight_decay=options.weight_decay,
    )
    return GradientTraining(setup, optimizer)


def readout(setup: Setup) -> Method:
    """Returns Adam on the last layer of the loss alone: what the features allow."""
    own = adam_settings(setup.options)
    names = last_layer(setup)
    last = [p for name, p in setup.model.named_parameters() if name in names]
    for name, parameter in setup.model.named_parameters():
        parameter.requires_grad_(name in names)
    return GradientTraining(setup, _adam(setup, own, last))


def sdagd(setup: Setup) -> Method:
    """Returns SDAGD; its curvature is observed where ``kappa`` asks for it."""
    own = sdagd_settings(setup.options)
    options = setup.options
    optimizer = SDAGD(
        _named_groups(setup.model, options.weight_decay),
        lr=options.lr,
        momentum=own.momentum,
        norm_decay=own.norm_decay,
        centring=own.centring,
        kappa=own.kappa,
        every=own.every,
        curvature_decay=own.curvature_decay,
        solve=own.solve,
        adapt=own.adapt,
        scope=own.scope,
        radius=own.radius,
        literal=own.literal,
        seed=options.seed,
    )
    return GradientTraining(
        setup,
        optimizer,
        watch=_watch(optimizer, setup.loss),
        forget=optimizer.forget,
        figures=lambda: _phases(optimizer),
    )


def _watch(optimizer: SDAGD, loss: Loss) -> Watch | None:
    """Returns what observes curvature, where it is wanted.

    Raises:
        BadConfig: no curvature is known for the loss.
    """
    if not any(group["kappa"] > 0 for group in optimizer.param_groups):
        return None
    if settled(loss).name not in CURVED:
        raise BadConfig(
            f"no curvature is known for the loss {settled(loss).name}",
            hint="leave kappa out, or train on cross-entropy, nll, mse …",
        )

    def watch(output: Any, name: str, labels: Any, share: float) -> None:
        given, wanted = main_output(output), main_output(labels)
        if given is None:
            return
        if wanted is not None and name in CLASSES and given.shape != wanted.shape:
            # Where the loss finds the classes: a language model has them last.
            given, wanted = classify(given, wanted.to(given.device), name)
        optimizer.observe(given, name, wanted, scale=share)

    return watch


def _phases(optimizer: SDAGD) -> dict[str, float]:
    """Returns how far along its boundary each layer walked, and what was refused."""
    phases = optimizer.phases()
    if not phases:
        return {}
    found = {
        "step over radius, median": statistics.median(p.step_ratio for p in phases),
        "step over radius, least": min(p.step_ratio for p in phases),
        "refused layer steps": float(sum(p.refused for p in phases)),
    }
    ratios = [p.curvature_ratio for p in phases if p.curvature_ratio is not None]
    if ratios:
        found["curvature over damping, median"] = statistics.median(ratios)
    return found


def _is_scale(model: nn.Module) -> dict[int, bool]:
    """Tells of each parameter whether decay would pull on a scale, not on a weight."""
    found = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = isinstance(module, PiecewiseLinear) and name == "values"
            found[id(parameter)] = values or name.startswith("ar_")
    return found


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    named = _named_groups(model, decay)
    return [{**g, "params": [p for _, p in g["params"]]} for g in named]


def _named_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Returns the parameters; limits and values of activations do not decay."""
    scale = _is_scale(model)
    named = list(model.named_parameters())
    decaying = [(name, p) for name, p in named if not scale[id(p)]]
    steady = [(name, p) for name, p in named if scale[id(p)]]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": decay},
        {"params": steady, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
