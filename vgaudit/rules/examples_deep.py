"""Small deep and static measurements to show rules, on the chain of ``examples``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from vgaudit.flow import (
    AttentionFlow,
    Audit,
    DeepFlow,
    Exponents,
    FormatLoss,
    LossFlow,
    NoiseFlow,
    ParameterPrecision,
    PlainStretch,
    Precision,
    StaticFlow,
    StaticLayer,
    StreamPoint,
    TheoryFlow,
    UpdateFlow,
)
from vgaudit.rules.examples import chain, fed, having

LOSS = LossFlow(name="cross-entropy", value=2.3, std=0.1, nonfinite=0)


def deep(audit: Audit | None = None, **fields: Any) -> Audit:
    """Returns a healthy chain, or the audit given, with a deep measurement."""
    return having(audit or chain(), deep=DeepFlow(**fields))


def trained(audit: Audit, *, dtype: str = "float32") -> Audit:
    """Returns the audit as of real data under a loss, in a type of the weights."""
    precision = Precision(dtype=dtype, measured="float32")
    lossy = having(audit, probe="loss", loss=LOSS, precision=precision)
    return fed(lossy, kind="real", spec="train.npz", loss="cross-entropy")


def heads(entropy: float, *, logit: float = 3.0, keys: int = 64) -> Audit:
    """Returns an audit with one attention layer of four equal heads."""
    call = AttentionFlow(
        layer="block.attn",
        source=None,
        queries=keys,
        keys=keys,
        entropy=(entropy,) * 4,
        collapsed=(float(entropy < 0.05),) * 4,
        largest_logit=(logit,) * 4,
    )
    return deep(attention=(call,))


def stream(*variations: float, tokens: tuple[float, ...] = ()) -> Audit:
    """Returns an audit whose signal varies so much from layer to layer."""
    points = tuple(
        StreamPoint(
            layer=f"layers.{2 * index}",
            size=1.0,
            variation=value,
            tokens=tokens[index] if tokens else None,
            rank=8.0,
        )
        for index, value in enumerate(variations)
    )
    return deep(stream=points)


def theory(predicted: float, measured: float, *, spread: float = 0.1) -> Audit:
    """Returns an audit with a prediction beside a measurement."""
    found = TheoryFlow(
        layers=(),
        chi=10 ** (2 * measured / 5),
        depth_scale=1.0,
        predicted=predicted,
        predicted_free=None,
        measured=measured,
        spread=spread,
        covered=10,
        steps=10,
    )
    return deep(theory=found)


def noise(snr: float) -> Audit:
    """Returns an audit of real data with so much signal in a batch's gradient."""
    line = NoiseFlow(
        name="",
        batches=8,
        batch_size=32,
        signal=snr,
        noise=1.0,
        snr=snr,
        noise_scale=32 / snr if snr else math.inf,
    )
    return trained(deep(noise=(line, replace(line, name="layers.0.weight"))))


def steps(
    *, ratio: float = 1e-3, swallowed: float = 0.0, floor: float = 0.0
) -> tuple[ParameterPrecision, ...]:
    """Returns the first steps on every weight of the healthy chain."""
    return tuple(
        ParameterPrecision(
            name=parameter.name,
            elements=parameter.numel,
            exponents=Exponents(
                lowest=-10, counts=(parameter.numel,), zeros=0, nonfinite=0
            ),
            formats=tuple(
                FormatLoss(format=name, zero=0.0, subnormal=0.0, overflow=0.0)
                for name in ("float16", "bfloat16")
            ),
            loss_scale=1.0,
            updates=tuple(
                UpdateFlow(
                    optimizer=name,
                    learning_rate=1e-3,
                    ratio=ratio,
                    swallowed=swallowed,
                    floor=floor if name == "adam" else 0.0,
                )
                for name in ("sgd", "adam")
            ),
        )
        for parameter in chain().flow.parameters
    )


def stretch(decades: float, *, layers: int = 12, kind: str = "relu") -> Audit:
    """Returns a static audit with one stretch of equal layers without norm or skip."""
    each = decades / (layers - 1)
    critical = {"relu": 2.0, "sigmoid": 17.0, "tanh": 1.2}[kind]
    found = tuple(
        StaticLayer(
            layer=f"layers.{2 * index}",
            activation=kind if index else "linear",
            gain=critical * 10 ** (2 * each),
            critical=critical if index else 1.0,
            decades=each if index else 0.0,
        )
        for index in range(layers)
    )
    saturating = layers - 1 if kind in ("sigmoid", "tanh") else 0
    run = PlainStretch(layers=found, saturating=saturating, decades=decades)
    facts = StaticFlow(
        weight_layers=layers,
        stretches=(run,),
        judged=layers,
        predicted=decades,
        seconds=0.1,
    )
    return having(chain(), layers=(), trunk=(), attenuation=None, static=facts)
