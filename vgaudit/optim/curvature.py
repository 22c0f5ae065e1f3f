"""Random cotangents whose squared pull-back is the diagonal of the Gauss-Newton matrix.

For a loss with output Hessian ``H = B Bᵀ`` per sample, ``s = B ε`` with independent
random signs ε gives ``E[(Jᵀ s)²] = diag(Jᵀ H J)``: one backward pass through any
graph, without per-sample gradients. Batch normalisation in train mode couples the
samples; the estimate then includes that coupling.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotRun

# A user's own draw: (output, generator) -> cotangent s with E[s sᵀ] = H.
Cotangent = Callable[[Tensor, torch.Generator], Tensor]
LossLike = str | nn.Module | Cotangent | None

NAMED: Mapping[str, nn.Module] = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "nll": nn.NLLLoss(),
    "mse": nn.MSELoss(),
    "bce-with-logits": nn.BCEWithLogitsLoss(),
}


_NOTHING_IGNORED = nn.CrossEntropyLoss().ignore_index
"""What torch leaves out by default; such labels are rare enough to do without."""


class _Likelihood(Protocol):
    def __call__(
        self, output: Tensor, targets: Tensor | None, loss: nn.Module, signs: Tensor, /
    ) -> Tensor: ...


def has_factor(loss: LossLike) -> bool:
    """Returns whether curvature can be drawn for ``loss``.

    Raises:
        BadConfig: a name that is not known.
    """
    if isinstance(loss, str) and loss not in NAMED:
        known = ", ".join(NAMED)
        raise BadConfig(
            f"no curvature factor for the loss {loss!r}",
            hint=f"use one of {known}, the loss module itself, or a function "
            "(output, generator) -> cotangent",
        )
    if isinstance(loss, nn.Module):
        return type(loss) in _FACTORS
    return loss is not None


def draw(
    output: Tensor, loss: LossLike, targets: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Returns one random cotangent s, of the shape and type of ``output``.

    Args:
        output: what the loss was computed from, ``[N, …]``.
        loss: a name, a loss module (its weights and reduction count), or a function
            ``(output, generator) -> s`` with ``E[s sᵀ]`` the loss's Hessian.
        targets: needed for class weights, ``ignore_index`` and ``pos_weight``.
        generator: on the device of ``output``.

    Raises:
        BadConfig: targets are needed and missing, or are no classes.
    """
    if isinstance(loss, str):
        loss = NAMED[loss]
    value = output.detach()
    value = value if value.dtype is torch.float64 else value.float()
    if isinstance(loss, nn.Module):
        coins = torch.randint(
            0, 2, value.shape, generator=generator, device=value.device
        )
        signs = coins.to(value.dtype) * 2 - 1
        drawn = _FACTORS[type(loss)](value, targets, loss, signs)
    elif loss is not None:
        drawn = loss(value, generator)
    else:
        raise BadConfig("no loss to draw curvature for", hint="name one")
    return drawn.to(output.dtype)


def pull_back(
    output: Tensor, cotangent: Tensor, params: list[Tensor]
) -> list[Tensor | None]:
    """Returns Jᵀ s for each parameter, None where the output does not depend on it.

    The graph is kept, so that the loss can still go backward through it.

    Raises:
        CannotRun: the graph is gone, or was compiled to be used once.
    """
    try:
        return list(
            torch.autograd.grad(
                output, params, cotangent, retain_graph=True, allow_unused=True
            )
        )
    except RuntimeError as error:
        text = str(error)
        if "donated buffer" in text:
            raise CannotRun(
                "the compiled model gives its buffers away in its first backward pass",
                hint="set torch._functorch.config.donated_buffer = False before the "
                "first call of the model",
            ) from error
        if "second time" in text or "does not require grad" in text:
            raise CannotRun(
                "curvature was asked for after the graph of the output was gone",
                hint="call observe(output, …) between the forward pass and backward()",
            ) from error
        raise


def generator_for(device: torch.device, *key: int) -> torch.Generator:
    """Returns a generator that depends on ``key`` alone, so that runs can resume."""
    seed = random.Random(repr(key)).getrandbits(62)
    return torch.Generator(device=device).manual_seed(seed)


def _categorical(probability: Tensor, signs: Tensor) -> Tensor:
    """Returns B ε for ``B Bᵀ = diag p − p pᵀ``, classes in dimension 1 (or 0)."""
    axis = min(1, probability.dim() - 1)
    rooted = probability.sqrt() * signs
    return rooted - probability * rooted.sum(axis, keepdim=True)


def _cross_entropy(
    output: Tensor, targets: Tensor | None, loss: nn.Module, signs: Tensor, /
) -> Tensor:
    assert isinstance(loss, nn.CrossEntropyLoss)
    axis = min(1, output.dim() - 1)
    drawn = _categorical(output.softmax(axis), signs)
    share, count = _class_share(output, targets, loss, loss.label_smoothing)
    return drawn * _rooted(share, loss.reduction, count)


def _nll(
    output: Tensor, targets: Tensor | None, loss: nn.Module, signs: Tensor, /
) -> Tensor:
    assert isinstance(loss, nn.NLLLoss)
    # The Jacobian of log_softmax turns √p ε into √p ε − p ⟨√p, ε⟩ by itself.
    drawn = (output / 2).exp() * signs
    share, count = _class_share(output, targets, loss, 0.0)
    return drawn * _rooted(share, loss.reduction, count)


def _class_share(
    output: Tensor,
    targets: Tensor | None,
    loss: nn.CrossEntropyLoss | nn.NLLLoss,
    smoothing: float,
) -> tuple[Tensor, Tensor | float]:
    """Returns the factor of each sample's Hessian, and what the mean divides by."""
    axis = min(1, output.dim() - 1)
    weight = loss.weight
    samples = output.numel() / output.shape[axis]
    if targets is None and loss.ignore_index != _NOTHING_IGNORED:
        raise BadConfig(
            f"ignore_index={loss.ignore_index} changes the curvature with the label",
            hint="pass the targets to observe()",
        )
    if weight is None and (targets is None or targets.is_floating_point()):
        return output.new_ones(()), samples
    if targets is None:
        raise BadConfig(
            "class weights change the curvature with the label",
            hint="pass the targets to observe()",
        )
    if weight is None:
        weight = output.new_ones(output.shape[axis])
    if targets.is_floating_point():
        shape = [-1 if d == axis else 1 for d in range(output.dim())]
        own = (targets * weight.view(shape)).sum(axis)
        share = (1 - smoothing) * own + smoothing * weight.mean()
        return share.unsqueeze(axis), samples
    kept = targets != loss.ignore_index
    classes = targets.where(kept, torch.zeros_like(targets))
    _check_classes(classes, len(weight))
    own = torch.where(kept, weight[classes], 0.0)
    share = (1 - smoothing) * own + smoothing * weight.mean() * kept
    # Where all are left out, what is divided is 0: nothing counts, nothing curves.
    return share.unsqueeze(axis), own.sum() + ~kept.any()


def _check_classes(targets: Tensor, outputs: int) -> None:
    """Raises unless every target is the number of a class.

    Raises:
        BadConfig: names the first that is none.
    """
    bad = targets[(targets < 0) | (targets >= outputs)]
    if bad.numel():
        raise BadConfig(
            f"target {int(bad[0])} but {outputs} outputs",
            hint=f"classes run from 0 to {outputs - 1}, in dimension 1 of the output",
        )


def _squared(
    output: Tensor, targets: Tensor | None, loss: nn.Module, signs: Tensor, /
) -> Tensor:
    assert isinstance(loss, nn.MSELoss)
    return signs * _rooted(output.new_tensor(2.0), loss.reduction, output.numel())


def _binary(
    output: Tensor, targets: Tensor | None, loss: nn.Module, signs: Tensor, /
) -> Tensor:
    assert isinstance(loss, nn.BCEWithLogitsLoss)
    probability = output.sigmoid()
    share = probability * (1 - probability)
    if loss.pos_weight is not None:
        if targets is None:
            raise BadConfig(
                "pos_weight changes the curvature with the label",
                hint="pass the targets to observe()",
            )
        share = share * (loss.pos_weight * targets + 1 - targets)
    if loss.weight is not None:
        share = share * loss.weight
    return signs * _rooted(share, loss.reduction, output.numel())


def _rooted(share: Tensor, reduction: str, count: Tensor | float) -> Tensor:
    """Returns √share, over √count where the loss is a mean."""
    root = share.sqrt()
    if reduction != "mean":
        return root
    return root / (count.sqrt() if isinstance(count, Tensor) else math.sqrt(count))


_FACTORS: Mapping[type[nn.Module], _Likelihood] = {
    nn.CrossEntropyLoss: _cross_entropy,
    nn.NLLLoss: _nll,
    nn.MSELoss: _squared,
    nn.BCEWithLogitsLoss: _binary,
}
