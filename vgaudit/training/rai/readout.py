"""Refitting the last linear layer: the end of the recipe, and its first control.

Training only the readout of an untouched network shows how much of a result the deep
layers have any part in. It is a convex problem for the usual losses, so it is solved:
L-BFGS in float64 on features brought to unit size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRewrite
from vgaudit.probe.tensors import cast
from vgaudit.training.rai.cuts import Cuts
from vgaudit.training.rai.relaxed import frozen
from vgaudit.training.rai.splice import Call, Splice, Spot, Visitor

PENALTY = 1e-4
_ITERATIONS = 200


def refit_readout(
    model: nn.Module,
    cuts: Cuts,
    loss: Loss,
    batch: Batch,
    *,
    penalty: float = PENALTY,
) -> float:
    """Refits the last layer in place; returns the loss on the batch.

    Args:
        model: its last linear layer is replaced.
        cuts: of the model.
        loss: mean over samples.
        batch: every training sample.
        penalty: half the squared weights times this are added to the loss; weights
            of features that are centred and of unit root mean square.

    Raises:
        CannotRewrite: the model does not end in one linear layer of its own.
    """
    if cuts.readout is None:
        raise CannotRewrite(
            "there is no readout to refit: the model does not end in one linear layer "
            "with weights of its own",
            hint="use --setting mode=sweep, which needs no refit",
        )
    problem = _Readout(model, cuts.readout, loss, batch)
    weight, bias = problem.solve(penalty)
    own, own_bias = (_parameter(model, name) for name in cuts.readout_names)
    assert own is not None
    with torch.no_grad():
        own.copy_(weight)
        if own_bias is not None:
            own_bias.copy_(bias)
    return problem.final


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    return model.get_parameter(name) if name else None


class _Readout:
    """The last layer as a problem of its own.

    Attributes:
        final: loss of the solution, without the penalty.
    """

    def __init__(self, model: nn.Module, spot: Spot, loss: Loss, batch: Batch) -> None:
        self._model, self._spot, self._loss = model, spot, loss
        self._batch = batch
        self.final = float("nan")
        calls: list[Call] = []

        def keep(_number: int, call: Call) -> Tensor:
            calls.append(call)
            value: Tensor = call.value
            return value

        with torch.no_grad(), frozen(model), self._splicing(keep):
            output = model(*batch.args, **batch.kwargs)
        (call,) = calls
        features = call.args[0] if call.args else call.kwargs["input"]
        self._value: Tensor = call.value
        self._biased = len(call.args) > 2 and call.args[2] is not None
        self._biased |= call.kwargs.get("bias") is not None
        self._shape = output.shape if isinstance(output, Tensor) else None
        self._plain = (
            isinstance(output, Tensor)
            and output.numel() == self._value.numel()
            and torch.equal(output.reshape_as(self._value), self._value)
        )
        features = features.double()
        # Without a bias there is nothing to take up the mean.
        over = tuple(range(features.dim() - 1))
        self._mean = features.mean(over) * self._biased
        centred = features - self._mean
        size = centred.square().mean().sqrt()
        self._size = torch.where(size > 0, size, torch.ones_like(size))
        self._features = centred / self._size
        self._labels = cast(batch.labels, device=features.device, dtype=torch.float64)

    def _splicing(self, visit: Visitor) -> Splice:
        return Splice([self._spot], visit, dropout=False)

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Returns weight ``[out, in]`` and bias for the features as they are."""
        shape = self._value.shape[-1], self._features.shape[-1]
        weight = self._features.new_zeros(shape).requires_grad_()
        bias = self._features.new_zeros(shape[0]).requires_grad_(self._biased)
        variables = [weight, bias] if self._biased else [weight]
        search = torch.optim.LBFGS(
            variables,
            max_iter=_ITERATIONS,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            search.zero_grad()
            loss = self._at(functional.linear(self._features, weight, bias))
            self.final = float(loss.detach())
            penalised: Tensor = loss + 0.5 * penalty * weight.square().sum()
            penalised.backward()  # type: ignore[no-untyped-call]
            return penalised

        with torch.enable_grad():
            search.step(closure)  # type: ignore[no-untyped-call]
            closure()
        found: Tensor = weight.detach() / self._size
        shift: Tensor = bias.detach() - found @ self._mean
        return found, shift

    def _at(self, value: Tensor) -> Tensor:
        """Returns the loss with ``value`` in place of the last layer's."""
        if self._plain:
            assert self._shape is not None
            return self._loss.function(value.reshape(self._shape), self._labels)
        given = value.to(self._value.dtype)
        with frozen(self._model), self._splicing(lambda _number, _call: given):
            output = self._model(*self._batch.args, **self._batch.kwargs)
        return self._loss.function(output, self._batch.labels)
