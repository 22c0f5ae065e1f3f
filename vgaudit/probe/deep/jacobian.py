"""Singular values of the Jacobian of the network, and of each of its blocks.

One sample goes forward; every product with J or Jᵀ is then a walk over the graph that
it left: Jᵀv is a backward pass, Ju the derivative of that pass by v.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgaudit.data.batch import Batch
from vgaudit.flow import JacobianFlow
from vgaudit.probe import norms
from vgaudit.probe.deep.factors import shape
from vgaudit.probe.deep.lanczos import largest_singular_value
from vgaudit.probe.deep.live import End, Live, Passage, end_of, live
from vgaudit.probe.forward import Setting
from vgaudit.probe.tensors import map_tensors

COTANGENTS = 8
DENSE = 256
"""Singular values up to which the whole spectrum is computed."""

_DENSE_ELEMENTS = 1 << 24
_MOST_BLOCKS = 48


class Operator:
    """The Jacobian of some tensors of a live graph by earlier ones, on flat vectors.

    Args:
        given: what is differentiated by. made: what is differentiated.
    """

    def __init__(self, given: Sequence[End], made: Sequence[End]) -> None:
        self._given, self._made = tuple(given), tuple(made)
        self.inputs = sum(end.elements for end in given)
        self.outputs = sum(end.elements for end in made)
        self._probe: Tensor | None = None
        self._image: Tensor | None = None

    def backward(self, v: Tensor, *, twice: bool = False) -> Tensor:
        """Returns Jᵀv; differentiable by v if asked."""
        found = torch.autograd.grad(
            [end.edge for end in self._made],
            [end.edge for end in self._given],
            _cut(v, self._made),
            retain_graph=True,
            create_graph=twice,
            allow_unused=True,
        )
        parts = [
            self.zeros(end) if part is None else part.reshape(-1)
            for part, end in zip(found, self._given, strict=True)
        ]
        return torch.cat(parts)

    def forward(self, u: Tensor) -> Tensor:
        """Returns Ju: Jᵀv is linear in v, and its derivative by v along u is Ju."""
        if self._probe is None or self._image is None:
            self._probe = self.random(self._made, seed=0).requires_grad_()
            self._image = self.backward(self._probe, twice=True)
        (found,) = torch.autograd.grad(
            self._image, self._probe, u, retain_graph=True, materialize_grads=True
        )
        return found

    @staticmethod
    def zeros(end: End) -> Tensor:
        """Returns a flat zero for one end."""
        return torch.zeros(end.elements, dtype=end.dtype, device=end.device)

    @staticmethod
    def random(ends: Sequence[End], *, seed: int) -> Tensor:
        """Returns a flat N(0, I), the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        size = sum(end.elements for end in ends)
        vector = torch.randn(
            size, generator=generator, dtype=torch.float64, device="cpu"
        )
        return vector.to(device=ends[0].device, dtype=ends[0].dtype)

    def cotangent(self, seed: int) -> Tensor:
        """Returns a random vector on the side of the outputs."""
        return self.random(self._made, seed=seed)

    def tangent(self, seed: int) -> Tensor:
        """Returns a random vector on the side of the inputs."""
        return self.random(self._given, seed=seed)

    def dense(self) -> Tensor | None:
        """Returns J by its rows or columns; None where it is too large."""
        if self.inputs * self.outputs > _DENSE_ELEMENTS:
            return None
        if self.outputs <= DENSE:
            unit = self.cotangent(0)
            return torch.stack([self.backward(e) for e in _basis(unit)])
        if self.inputs <= DENSE:
            unit = self.tangent(0)
            return torch.stack([self.forward(e) for e in _basis(unit)], 1)
        return None


def _basis(like: Tensor) -> Iterator[Tensor]:
    for place in range(like.numel()):
        vector = torch.zeros_like(like)
        vector[place] = 1
        yield vector


def _cut(vector: Tensor, ends: Sequence[End]) -> list[Tensor]:
    parts = torch.split(vector, [end.elements for end in ends])
    return [
        part.reshape(end.shape).to(end.dtype)
        for part, end in zip(parts, ends, strict=True)
    ]


def singular_values(operator: Operator, layer: str, seed: int) -> JacobianFlow:
    """Returns the figures of one Jacobian."""
    smaller = min(operator.inputs, operator.outputs)
    matrix = _tried(operator.dense)
    if matrix is not None:
        values = torch.linalg.svdvals(matrix.double()).tolist()
        return JacobianFlow(
            layer=layer,
            inputs=operator.inputs,
            outputs=operator.outputs,
            mean_square=math.fsum(x * x for x in values) / smaller,
            mean_square_error=0.0,
            largest=values[0],
            converged=True,
            spectrum=tuple(values),
        )
    sizes = norms.read(
        [
            norms.norm(operator.backward(operator.cotangent(seed + 1 + i)))
            for i in range(COTANGENTS)
        ]
    )
    squares = [size * size / smaller for size in sizes]
    largest = _tried(
        lambda: largest_singular_value(
            operator.forward, operator.backward, operator.tangent(seed)
        )
    )
    return JacobianFlow(
        layer=layer,
        inputs=operator.inputs,
        outputs=operator.outputs,
        mean_square=statistics.fmean(squares),
        mean_square_error=statistics.stdev(squares) / math.sqrt(COTANGENTS),
        largest=None if largest is None else largest.value,
        converged=largest is not None and largest.converged,
    )


def _tried(compute: Any) -> Any:
    """Returns a result; None where an operation has no second derivative."""
    try:
        return compute()
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if "derivative" in text or "differentiable" in text or "grad_fn" in text:
            return None
        raise


def _blocks(seen: Live, entries: Sequence[End]) -> list[Passage]:
    """Returns the blocks of a network, in forward order.

    They are the innermost modules of several layers that the whole stream passes
    through: what goes in and what comes out are cut nodes, or the input.
    """
    cuts = {seen.graph.nodes[place] for place in seen.blueprint.plan.cuts}
    starts = cuts | {end.edge.node for end in entries}
    through = [
        passage
        for passage in seen.passages
        if passage.composite
        and passage.path
        and passage.given.edge.node in starts
        and passage.made.edge.node in cuts
        and passage.given.edge.node is not passage.made.edge.node
    ]
    paths = {passage.path for passage in through}
    inner = [p for p in through if not any(q.startswith(f"{p.path}.") for q in paths)]
    return _spread(inner)


def _spread(passages: list[Passage]) -> list[Passage]:
    """Returns at most so many, evenly over the depth."""
    count = len(passages)
    if count <= _MOST_BLOCKS:
        return passages
    return [passages[i * count // _MOST_BLOCKS] for i in range(_MOST_BLOCKS)]


def jacobians(setting: Setting, batch: Batch) -> tuple[JacobianFlow, ...]:
    """Returns the network's singular values first, then those of its blocks.

    Args:
        setting: the model; its loss is not used.
        batch: one sample, or a few where the model normalises over the batch.
    """
    leaves = _Leaves()
    asked = dataclasses.replace(setting, feed=leaves, loss=None)
    with _twice_differentiable(setting.model), live(asked, batch) as seen:
        made = [end_of(output) for output in seen.outputs if output.is_floating_point()]
        given = leaves.ends or _entry(seen)
        found = []
        if given and made:
            found.append(singular_values(Operator(given, made), "", setting.seed))
        for passage in _blocks(seen, given):
            operator = Operator([passage.given], [passage.made])
            again = f" call {passage.call + 1}" if passage.call else ""
            name = f"{passage.path}{again}"
            found.append(singular_values(operator, name, setting.seed))
        return tuple(found)


def _entry(seen: Live) -> list[End]:
    """Returns the first tensor of the trunk: where tokens have become numbers."""
    if not seen.blueprint.plan.cuts:
        return []
    node = seen.graph.nodes[seen.blueprint.plan.cuts[-1]]
    like = seen.outputs[0]
    size = torch.Size(shape(node))
    return [End(GradientEdge(node, 0), size, like.dtype, like.device)]


class _Leaves:
    """Makes the inputs of a model something to differentiate by."""

    def __init__(self) -> None:
        self.ends: list[End] = []

    def __call__(self, value: Any) -> Any:
        return map_tensors(value, self._leaf)

    def _leaf(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        # A clone, so that the model may write over its input.
        entered = tensor.detach().requires_grad_().clone()
        self.ends.append(end_of(entered))
        return entered


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Keeps to kernels whose backward pass can itself be differentiated.

    Fused attention cannot, nor can the recurrent kernels of oneDNN and cuDNN.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(before[0] and not recurrent)
    torch._C._set_cudnn_enabled(before[1] and not recurrent)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(before[0])
        torch._C._set_cudnn_enabled(before[1])


def samples_wanted(model: nn.Module) -> int:
    """Returns one sample, or two where layers normalise over the batch."""
    norm = nn.modules.batchnorm._NormBase
    over = (
        isinstance(m, norm) and (m.training or m.running_mean is None)
        for m in model.modules()
    )
    return 2 if any(over) else 1
