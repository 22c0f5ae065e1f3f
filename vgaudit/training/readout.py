"""The readout of a model: the last of the layers that its loss sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig
from vgaudit.probe.state import untouched
from vgaudit.training.method import Setup
from vgaudit.training.weights import same_buffers


def last_layer(setup: Setup) -> frozenset[str]:
    """Returns the parameters of the layer that is called last before the loss.

    Of the modules with a weight, the last one whose parameters get a gradient: a model
    with several outputs may call layers later that the loss never sees.

    By name: what is called is the plain model, whose parameters may be others.

    Raises:
        BadConfig: no module with a weight is called, or none on the way to the loss.
        CannotRun: the loss has no gradient.
    """
    plain, called = setup.plain, list[nn.Module]()
    owners = [
        module
        for module in plain.modules()
        if any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    known = [p for module in owners for p in _differentiable(module)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched(plain, setup.device))
        stack.enter_context(same_buffers(plain))
        stack.enter_context(_trainable(known))
        for module in owners:
            hook = module.register_forward_hook(lambda m, *_: called.append(m))
            stack.callback(hook.remove)
        seen = _reached(setup, known)
    for module in reversed(called):
        own = {id(p) for p in module.parameters(recurse=False)}
        if own & seen:
            named = plain.named_parameters()
            return frozenset(name for name, p in named if id(p) in own)
    why = "reaches the loss" if called else "is called by itself"
    raise BadConfig(
        f"no layer with a weight {why}, so there is no readout",
        hint="choose another control",
    )


def _reached(setup: Setup, known: Sequence[Tensor]) -> set[int]:
    """Returns which parameters get a gradient from the loss, by identity."""
    if not known:
        return set()
    with torch.enable_grad():
        output = setup.plain(*setup.example.args, **setup.example.kwargs)
        loss = setup.loss.function(output, setup.example.labels)
        found = torch.autograd.grad(loss, known, allow_unused=True)
    pairs = zip(known, found, strict=True)
    return {id(p) for p, gradient in pairs if gradient is not None}


def _differentiable(module: nn.Module) -> list[nn.Parameter]:
    own = module.parameters(recurse=False)
    return [p for p in own if p.is_floating_point() or p.is_complex()]


@contextlib.contextmanager
def _trainable(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Lets frozen parameters have a gradient: a readout trains, frozen or not."""
    frozen = [p for p in parameters if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
