"""Small audits to show rules: a healthy chain of layers, and ways to spoil it.

::

    chain([-9.6, -8, -6, -4, -2, 0])        a 6-layer net; decades at each layer
    having(chain(...), uncalibrated=("bn",))    the same, one field of the flow changed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from vgaudit.flow import (
    ActivationFlow,
    Audit,
    DataFacts,
    GradientFlow,
    Interval,
    LayerFlow,
    Moments,
    ParameterFlow,
    Precision,
    RunFacts,
    Target,
    TrunkStep,
)

HEALTHY = (-0.9, -0.7, -0.5, -0.4, -0.2, 0.0)
"""Decades at six layers of a net that trains."""

WIDTH = 64
SLOPES = 0.6
"""Share of each loss that an example puts down to the activation."""


def around(value: float, *, spread: float = 0.0) -> Interval:
    """Returns a figure over four batches with ``spread`` to either side."""
    return Interval(value=value, lo=value - spread, hi=value + spread, n=4)


def chain(
    decades: Sequence[float] = HEALTHY, *, kind: str = "sigmoid", spread: float = 0.0
) -> Audit:
    """Returns the audit of linear layers with activations between them.

    They are called ``layers.0`` (linear), ``layers.1`` (activation) and so on.

    Args:
        decades: attenuation at each linear layer, nearest the input first.
        kind: of the activations between them.
        spread: half the width of every interval.
    """
    layers: list[LayerFlow] = []
    for index, value in enumerate(decades):
        depth = len(decades) - 1 - index
        layers.append(_linear(2 * index, depth, around(value, spread=spread)))
        if depth:
            layers.append(_activation(2 * index + 1, depth, kind))
    flow = GradientFlow(
        probe="jacobian",
        mode="train",
        device="cpu",
        batches=4,
        skipped=0,
        batch_size=32,
        samples=128,
        seed=0,
        precision=Precision(dtype="float32", measured="float32"),
        attenuation=around(decades[0], spread=spread),
        weight_layers=len(decades),
        layers=tuple(layers),
        trunk=_steps(decades, spread),
        output_variation=0.5,
    )
    return Audit(target=_target(layers), data=_data(), run=_run(), flow=flow)


def having(audit: Audit, **fields: Any) -> Audit:
    """Returns the audit with fields of its flow changed."""
    return replace(audit, flow=replace(audit.flow, **fields))


def loaded(audit: Audit, **fields: Any) -> Audit:
    """Returns the audit with fields of its target changed."""
    return replace(audit, target=replace(audit.target, **fields))


def fed(audit: Audit, **fields: Any) -> Audit:
    """Returns the audit with fields of its data changed."""
    return replace(audit, data=replace(audit.data, **fields))


def layer(audit: Audit, path: str, **fields: Any) -> Audit:
    """Returns the audit with fields of the layer at ``path`` changed."""
    changed = tuple(
        replace(item, **fields) if item.path == path else item
        for item in audit.flow.layers
    )
    return having(audit, layers=changed)


def parameter(audit: Audit, name: str, **fields: Any) -> Audit:
    """Returns the audit with fields of one parameter changed."""
    for item in audit.flow.layers:
        if any(p.name == name for p in item.parameters):
            parameters = tuple(
                replace(p, **fields) if p.name == name else p for p in item.parameters
            )
            return layer(audit, item.path, parameters=parameters)
    raise KeyError(name)


def activation(audit: Audit, path: str, **fields: Any) -> Audit:
    """Returns the audit with statistics of the activation at ``path`` changed."""
    for item in audit.flow.layers:
        if item.path == path and item.activation is not None:
            return layer(audit, path, activation=replace(item.activation, **fields))
    raise KeyError(path)


def _linear(order: int, depth: int, attenuation: Interval) -> LayerFlow:
    path = f"layers.{order}"
    norm = float(10**attenuation.value)
    return LayerFlow(
        path=path,
        type="Linear",
        order=order,
        depth=depth,
        call=0,
        calls=1,
        source=None,
        trunk=True,
        weighted=True,
        attenuation=attenuation,
        gain=around(0.0),
        zero_gradient=False,
        parameters=(
            _parameter(f"{path}.weight", (WIDTH, WIDTH), norm),
            _parameter(f"{path}.bias", (WIDTH,), norm),
        ),
    )


def _parameter(name: str, shape: tuple[int, ...], grad_norm: float) -> ParameterFlow:
    numel = WIDTH ** len(shape)
    weight_rms = 0.07
    return ParameterFlow(
        name=name,
        shape=shape,
        numel=numel,
        grad_norm=grad_norm,
        grad_rms=grad_norm / numel**0.5,
        weight_rms=weight_rms,
        grad_to_weight=grad_norm / (weight_rms * numel**0.5),
        zero_fraction=0.0,
        nonfinite=0,
        trainable=True,
        connected=True,
        called=True,
    )


def _activation(order: int, depth: int, kind: str) -> LayerFlow:
    bounded = kind in {"sigmoid", "tanh"}
    return LayerFlow(
        path=f"layers.{order}",
        type=kind.capitalize(),
        order=order,
        depth=depth,
        call=0,
        calls=1,
        source=None,
        trunk=True,
        weighted=False,
        attenuation=None,
        gain=None,
        zero_gradient=False,
        activation=ActivationFlow(
            kind=kind,
            elements=128 * WIDTH,
            samples=128,
            input=Moments(mean=0.0, std=1.0, min=-3.5, max=3.5),
            output=Moments(mean=0.5, std=0.2, min=0.0, max=1.0),
            slope_mean_square=0.04 if bounded else 0.5,
            slope_max=0.25 if kind == "sigmoid" else 1.0,
            saturated_low=0.01,
            saturated_high=0.01,
            units=WIDTH,
            dead_units=0,
            dead_bound=3 / 128,
            bounded=bounded,
            gate=False,
        ),
    )


def _steps(decades: Sequence[float], spread: float) -> tuple[TrunkStep, ...]:
    steps: list[TrunkStep] = []
    for index, (here, after) in enumerate(pairwise(decades)):
        gain, depth = here - after, len(decades) - 1 - index
        for offset, at, share in ((1, here, SLOPES), (2, after, 1 - SLOPES)):
            name = f"layers.{2 * index + offset}"
            lost_after = gain * (1 - SLOPES) if offset == 2 else 0.0
            steps.append(
                TrunkStep(
                    name=name,
                    layer=name,
                    op="SigmoidBackward0" if offset == 1 else "AddmmBackward0",
                    cause="activation" if offset == 1 else "weights",
                    depth=depth,
                    attenuation=around(at + lost_after, spread=spread),
                    gain=around(gain * share, spread=spread),
                )
            )
    return tuple(steps)


def _target(layers: Sequence[LayerFlow]) -> Target:
    total = sum(p.numel for item in layers for p in item.parameters)
    return Target(
        spec="model.safetensors",
        format="safetensors",
        trust_tier="T0",
        architecture="Net",
        parameters=total,
        trainable=total,
        sha256="0" * 64,
    )


def _data() -> DataFacts:
    return DataFacts(kind="synthetic", spec="normal 32x64", loss="jacobian")


def _run() -> RunFacts:
    return RunFacts(torch="2.10.0", python="3.12.0", device="cpu", seed=0, seconds=0.1)
