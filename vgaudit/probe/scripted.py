"""TorchScript modules: the gradients of their parameters, and nothing else.

Neither their calls nor their parameters can be replaced, so there is no trunk and
there are no activations: only what autograd gives for each parameter. The module
runs as it is; its buffers and modes are put back.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRun, NothingMeasured
from vgaudit.flow import (
    GradientFlow,
    LayerFlow,
    LossFlow,
    NotMeasured,
    ParameterFlow,
    Precision,
)
from vgaudit.job import ProbeOptions
from vgaudit.probe import norms
from vgaudit.probe.tensors import cast, differentiable

REASON = "TorchScript's calls cannot be watched; the eager module can be measured"


def is_scripted(model: nn.Module) -> bool:
    """Returns whether any part of a model is TorchScript."""
    return any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())


@dataclass(slots=True)
class _Seen:
    """One parameter's gradients over the batches."""

    norms: list[float] = field(default_factory=list)
    zeros: float = 0.0
    nonfinite: int = 0
    connected: bool = False


@torch.inference_mode(False)
def parameters_only(
    model: nn.Module, batches: Iterable[Batch], loss: Loss | None, options: ProbeOptions
) -> GradientFlow:
    """Returns a flow that holds the gradients of parameters, and no transport.

    Raises:
        CannotRun: forward, loss or backward fail.
        NothingMeasured: there was no batch.
    """
    seen: defaultdict[str, _Seen] = defaultdict(_Seen)
    losses: list[float] = []
    sizes: list[int] = []
    with _put_back(model):
        model.train(options.mode == "train")
        for number, batch in enumerate(batches):
            losses.append(_step(model, batch, (loss, options, number), seen))
            sizes.append(batch.size)
    if not sizes:
        raise NothingMeasured("no batch to measure", hint="give data with samples")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return GradientFlow(
        probe="jacobian" if loss is None else "loss",
        mode=options.mode,
        device=options.device,
        batches=len(sizes),
        skipped=0,
        batch_size=sizes[0],
        samples=sum(sizes),
        seed=options.seed,
        precision=Precision(dtype=dtype, measured=dtype),
        attenuation=None,
        weight_layers=0,
        layers=tuple(_layers(model, seen)),
        trunk=(),
        loss=None if loss is None else _loss_flow(loss, losses),
        not_measured=(NotMeasured(path="trunk and activations", reason=REASON),),
        parameters_only=True,
    )


def _step(
    model: nn.Module,
    batch: Batch,
    how: tuple[Loss | None, ProbeOptions, int],
    seen: defaultdict[str, _Seen],
) -> float:
    """Adds one batch, and returns its loss."""
    loss, options, number = how
    device = torch.device(options.device)
    args, kwargs, labels = cast(
        (batch.args, batch.kwargs, batch.labels), device=device, dtype=None
    )
    try:
        value = model.to(device)(*args, **kwargs)
        outputs = differentiable(value)
        if not outputs:
            raise CannotRun("the output of the model has no gradient")
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        cotangents: list[Tensor] | None = None
        total = 0.0
        if loss is None:
            generator = torch.Generator().manual_seed(options.seed + number)
            cotangents = [_like(output, generator) for output in outputs]
        else:
            outputs = [loss.function(value, labels)]
            total = float(outputs[0].detach())
        grads = torch.autograd.grad(
            outputs, list(named.values()), cotangents, allow_unused=True
        )
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise CannotRun(
            f"the TorchScript model failed: {first}",
            hint="check the shape and type of the input: --input, --data",
        ) from error
    for name, grad in zip(named, grads, strict=True):
        _add(seen[name], grad, first=number == 0)
    return total


def _like(output: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(output.shape, generator=generator, dtype=torch.float32)
    return drawn.to(output.device, output.dtype)


def _add(seen: _Seen, grad: Tensor | None, *, first: bool) -> None:
    if grad is None:
        return
    seen.connected = True
    seen.nonfinite += int((~torch.isfinite(grad)).sum())
    seen.norms.append(float(norms.norm(grad)))
    if first:
        seen.zeros = float((grad == 0).double().mean())


def _layers(model: nn.Module, seen: dict[str, _Seen]) -> Iterator[LayerFlow]:
    """Yields the modules that own parameters, in the order of the module tree."""
    order = 0
    for path, module in model.named_modules():
        own = list(module.named_parameters(recurse=False))
        if not own:
            continue
        flows = tuple(
            _parameter(f"{path}.{name}".lstrip("."), p, seen) for name, p in own
        )
        yield LayerFlow(
            path=path or "the model",
            type=getattr(module, "original_name", type(module).__name__),
            order=order,
            depth=None,
            call=0,
            calls=1,
            source=None,
            trunk=False,
            weighted=any(p.dim() > 1 for _, p in own),
            attenuation=None,
            gain=None,
            zero_gradient=all(p.connected and p.grad_norm == 0 for p in flows),
            parameters=flows,
        )
        order += 1


def _parameter(name: str, value: Tensor, seen: dict[str, _Seen]) -> ParameterFlow:
    found = seen.get(name, _Seen())
    norm = math.fsum(found.norms) / len(found.norms) if found.norms else 0.0
    weight = float(norms.norm(value.detach()))
    root = math.sqrt(max(value.numel(), 1))
    return ParameterFlow(
        name=name,
        shape=tuple(value.shape),
        numel=value.numel(),
        grad_norm=norm,
        grad_rms=norm / root,
        weight_rms=weight / root,
        grad_to_weight=norm / weight if weight else None,
        zero_fraction=found.zeros,
        nonfinite=found.nonfinite,
        trainable=value.requires_grad,
        connected=found.connected,
        called=found.connected,
    )


def _loss_flow(loss: Loss, values: list[float]) -> LossFlow:
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    spread = math.fsum((value - mean) ** 2 for value in finite)
    return LossFlow(
        name=loss.name,
        value=mean,
        std=math.sqrt(spread / max(len(finite) - 1, 1)),
        nonfinite=len(values) - len(finite),
    )


@contextlib.contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Restores buffers, modes and random states when the block ends."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)
            for module, training in modes:
                module.training = training
