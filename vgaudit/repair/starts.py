"""What is done to a model before it trains: a copy is converted or drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.data.seeding import generator_for, private_random
from vgaudit.errors import CannotRewrite
from vgaudit.fixing import Start
from vgaudit.flow import GradientFlow
from vgaudit.treatments import treat
from vgaudit.treatments.copying import copied

GAINS = {"sigmoid": 4.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}
"""1/φ′(0) of a sigmoid; what keeps the variance behind tanh and ReLU."""

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def begun(
    model: nn.Module,
    start: Start,
    flow: GradientFlow,
    look: Sequence[Batch],
    *,
    seed: int,
) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Returns a model to train, and the edits where it was converted.

    Args:
        model: stays as it is.
        start: what to do.
        flow: of the model's scan; tells which activation follows which layer.
        look: a few training batches, to calibrate on.
        seed: of what is drawn; the same seed gives the same model.

    Raises:
        CannotRewrite: there is nothing that this start can change.
    """
    if start == "as-it-is":
        return copied(model)[0], ()
    if start == "reinit":
        return _drawn_anew(model, flow, seed), ()
    with private_random(seed, "start", start):
        treated = treat(model, look, ConvertOptions(to=start))
    return treated.model, treated.edits


def _drawn_anew(model: nn.Module, flow: GradientFlow, seed: int) -> nn.Module:
    """Returns a copy with new weights: the variance of gradient and signal is kept.

    Normal weights of variance gain²·2/(fan in + fan out), biases that centre the
    inputs of what follows a sigmoid, normalizations as they are when built.
    Source: Glorot and Bengio, AISTATS 2010; gain 4 for sigmoids is theirs.

    Raises:
        CannotRewrite: no layer has weights to draw.
    """
    fresh, _ = copied(model)
    generator = generator_for(seed, "reinit")
    gains = _gains(flow)
    modules = dict(fresh.named_modules())
    layers = {path: m for path, m in modules.items() if isinstance(m, _LAYERS)}
    layers = {
        p: m for p, m in layers.items() if type(m).__module__.startswith("torch.")
    }
    if not layers:
        raise CannotRewrite("no linear layer or convolution has weights to draw anew")
    for path, layer in layers.items():
        kind, before = gains.get(path, ("", ""))
        _draw(layer, GAINS.get(kind, 1.0), generator, centre=before == "sigmoid")
    with private_random(seed, "reinit", "norms"):
        for module in modules.values():
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
                module.reset_parameters()
    return fresh


@torch.no_grad()
def _draw(
    layer: nn.Module, gain: float, generator: torch.Generator, *, centre: bool
) -> None:
    weight, bias = layer.weight, layer._parameters.get("bias")
    assert isinstance(weight, Tensor)
    field = weight[0, 0].numel() if weight.dim() > 2 else 1
    fans = (weight.shape[0] + weight.shape[1]) * field
    drawn = torch.randn(weight.shape, generator=generator) * gain * math.sqrt(2 / fans)
    weight.copy_(drawn)
    if bias is not None:
        bias.zero_()
        if centre and len(bias) == len(weight):
            bias.copy_(-0.5 * drawn.flatten(1).sum(1))


def _gains(flow: GradientFlow) -> dict[str, tuple[str, str]]:
    """Returns the activation behind and before each layer, by the order of calls."""
    found: dict[str, tuple[str, str]] = {}
    before, waiting = "", ""
    for layer in sorted(flow.layers, key=lambda layer: layer.order):
        if layer.activation is not None:
            if waiting:
                found[waiting] = (layer.activation.kind, found[waiting][1])
            before, waiting = layer.activation.kind, ""
        elif layer.weighted:
            found[layer.path] = ("", before)
            before, waiting = "", layer.path
    return found
