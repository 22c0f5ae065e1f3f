"""What kind of net a flow is of: by its activations, and by its shared weights.

How much loss of gradient a net bears depends on what its units do when the weights
grow, which is how training gets out of a small gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from vgaudit.flow import ActivationFlow, GradientFlow

Kind = Literal["rectified", "centred", "offset", "linear"]


def kind(flow: GradientFlow, offset: float) -> Kind:
    """Returns what most activations are, gates and the output's left out.

    ``rectified`` have no two rails (ReLU and its kin, also exponentials);
    ``centred`` have (tanh), ``offset`` have and are nearly constant (sigmoid).
    ``linear`` is a net without activations.

    Args:
        flow: what was measured.
        offset: size of an output's mean over its deviation from which it is nearly
            constant.
    """
    seen = list(_hidden(flow))
    if not seen:
        return "linear"
    if not railed(flow):
        return "rectified"
    bounded = [x for x in seen if x.bounded]
    off = [x for x in bounded if abs(x.output.mean) > offset * x.output.std]
    return "offset" if 2 * len(off) > len(bounded) else "centred"


def railed(flow: GradientFlow) -> bool:
    """Tells whether most units have two rails (sigmoid, tanh, …)."""
    seen = list(_hidden(flow))
    return 2 * sum(x.bounded for x in seen) > len(seen)


def one_sided(flow: GradientFlow) -> bool:
    """Tells whether most units are ReLUs, whose slope below zero is exactly none."""
    seen = list(_hidden(flow))
    return 2 * sum(x.kind == "relu" for x in seen) > len(seen)


def shared(flow: GradientFlow) -> bool:
    """Tells whether most weights on the trunk are one that is called several times."""
    calls = [x.calls for x in flow.layers if x.weighted and x.trunk]
    return 2 * sum(count > 1 for count in calls) > len(calls)


def _hidden(flow: GradientFlow) -> Iterator[ActivationFlow]:
    for layer in flow.layers:
        if layer.activation is not None and layer.depth and not layer.activation.gate:
            yield layer.activation
