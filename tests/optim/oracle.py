"""SDAGD a second time: one tensor after the other, in float64, as the text says it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

Gradients = list[tuple[Tensor, Tensor]]


@dataclass
class Affine:
    """The averages of one layer with a weight ``[m, n]`` and a bias ``[m]``."""

    weight: Tensor
    bias: Tensor
    product: Tensor = field(init=False)
    square: float = 0.0
    momentum: list[Tensor] = field(init=False)
    norm: list[float] = field(default_factory=lambda: [0.0, 0.0])
    factor: float = 1.0
    steps: int = 0

    def __post_init__(self) -> None:
        self.weight = self.weight.detach().double().clone()
        self.bias = self.bias.detach().double().clone()
        self.product = torch.zeros_like(self.weight[0])
        self.momentum = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]


@dataclass
class SlowSDAGD:
    """Weights, biases and their steps; gradients come from outside."""

    layers: list[Affine]
    lr: float
    beta: float = 0.9
    centring: bool = True
    adapt: bool = False
    kappa: float = 0.0
    curvature: list[tuple[Tensor, Tensor]] | None = None
    weight_decay: float = 0.0

    def step(self, gradients: Gradients) -> None:
        for index, (layer, grads) in enumerate(
            zip(self.layers, gradients, strict=True)
        ):
            curvature = self.curvature[index] if self.curvature else (0.0, 0.0)
            self._step(layer, (grads[0].double(), grads[1].double()), curvature)

    def _step(
        self,
        layer: Affine,
        grads: tuple[Tensor, Tensor],
        curvature: tuple[Tensor | float, Tensor | float],
    ) -> None:
        weight_grad, bias_grad = grads
        layer.steps += 1
        mean = torch.zeros_like(layer.product)
        if self.centring:
            fresh = weight_grad.T @ bias_grad
            layer.product = self.beta * layer.product + (1 - self.beta) * fresh
            layer.square = self.beta * layer.square
            layer.square += (1 - self.beta) * float(bias_grad @ bias_grad)
            mean = layer.product / layer.square
            weight_grad = weight_grad - torch.outer(bias_grad, mean)
        pair = (weight_grad, bias_grad)
        if self.adapt and layer.steps % 5 == 0:
            layer.factor *= math.exp(0.15 * _cosine(pair, layer.momentum))
            layer.factor = min(max(layer.factor, 0.1), 2.0)
        steps = []
        for place, (values, grad) in enumerate(
            zip((layer.weight, layer.bias), pair, strict=True)
        ):
            size = max(float(values.norm()), 0.05 * math.sqrt(len(values)))
            radius = self.lr * layer.factor * size
            corrected = 1 - self.beta**layer.steps
            average = self.beta * layer.momentum[place] + (1 - self.beta) * grad
            layer.momentum[place] = average
            layer.norm[place] *= self.beta
            layer.norm[place] += (1 - self.beta) * float(grad.norm()) ** 2
            mu = math.sqrt(layer.norm[place] / corrected) / radius
            steps.append(average / corrected / (mu + self.kappa * curvature[place]))
        shrink = 1 - self.lr * self.weight_decay
        layer.weight = layer.weight * shrink - steps[0]
        layer.bias = layer.bias * shrink - steps[1] + steps[0] @ mean


def _cosine(left: tuple[Tensor, Tensor], right: list[Tensor]) -> float:
    one = torch.cat([part.flatten() for part in left])
    other = torch.cat([part.flatten() for part in right])
    return float(one @ other / (one.norm() * other.norm()))


def gauss_newton_diagonal(
    model: nn.Module, inputs: Tensor, hessians: Tensor
) -> dict[str, Tensor]:
    """Returns diag(Σ_n J_nᵀ H_n J_n) from the whole Jacobian.

    Args:
        model: in float64.
        inputs: ``[N, …]``.
        hessians: of the loss by one sample's outputs ``[N, C, C]``.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(values: dict[str, Tensor]) -> Tensor:
        return functional_call(model, values, (inputs,))

    jacobians = jacrev(outputs)(params)
    return {
        name: torch.einsum("nc...,ncd,nd...->...", jacobian, hessians, jacobian)
        for name, jacobian in jacobians.items()
    }
