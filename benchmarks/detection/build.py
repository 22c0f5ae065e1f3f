"""From a model spec, which is plain data, to a torch module."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.detection.tasks import LETTERS, SIDE, task

SHRINK, GROW, HUGE, DEAD_BIAS = 0.1, 4.0, 16.0, -3.0


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One labelled model, as in ``suite.json``.

    Attributes:
        name: unique; its hash is part of the seed.
        family: which builder.
        task: what it is trained on.
        depth: hidden layers, blocks or levels of the family.
        width: features, channels or state size.
        activation: of the hidden layers.
        init: ``default`` (torch's own), ``xavier``, ``he``, ``small`` (default ×
            0.1), ``large`` (default × 4), ``huge`` (default × 16), ``dead`` (default,
            hidden biases −3).
        norm: ``""``, ``batch`` or ``layer``.
        variant: what else the family knows: ``lstm``, ``pre``, ``residual`` …
        dtype: of parameters and inputs.
        seed: of the initial weights.
    """

    name: str
    family: str
    task: str
    depth: int
    width: int
    activation: str = "relu"
    init: str = "default"
    norm: str = ""
    variant: str = ""
    dtype: str = "float32"
    seed: int = 0


class Exp(nn.Module):
    """The exponential as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns exp(x)."""
        return x.exp()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "exp": Exp,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def build(spec: Spec) -> nn.Module:
    """Returns the model that a spec describes, always with the same weights.

    Raises:
        KeyError: an unknown family, activation or initialisation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(spec.name.encode()) + spec.seed)
        model = FAMILIES[spec.family](spec)
        INITS[spec.init](model)
    return model.to(getattr(torch, spec.dtype))


def _norm(spec: Spec, width: int, *, images: bool = False) -> list[nn.Module]:
    if spec.norm == "batch":
        return [nn.BatchNorm2d(width) if images else nn.BatchNorm1d(width)]
    if spec.norm == "layer":
        return [nn.GroupNorm(1, width) if images else nn.LayerNorm(width)]
    return []


def _mlp(spec: Spec) -> nn.Module:
    data = task(spec.task)
    layers: list[nn.Module] = []
    width = data.x[0].numel()
    for _ in range(spec.depth):
        layers += [
            nn.Linear(width, spec.width),
            *_norm(spec, spec.width),
            ACTIVATIONS[spec.activation](),
        ]
        width = spec.width
    return nn.Sequential(*layers, nn.Linear(width, data.outputs))


def _cnn(spec: Spec) -> nn.Module:
    layers: list[nn.Module] = []
    width = 1
    for _ in range(spec.depth):
        layers += [
            nn.Conv2d(width, spec.width, 3, padding=1),
            *_norm(spec, spec.width, images=True),
            ACTIVATIONS[spec.activation](),
        ]
        width = spec.width
    head = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, 4)]
    return nn.Sequential(*layers, *head)


class Block(nn.Module):
    """``x + f(x)`` with f = norm, activation, weight; twice."""

    def __init__(self, spec: Spec, *, images: bool) -> None:
        super().__init__()
        width = spec.width
        body: list[nn.Module] = []
        for _ in range(2):
            weight = (
                nn.Conv2d(width, width, 3, padding=1)
                if images
                else nn.Linear(width, width)
            )
            body += [
                *_norm(spec, width, images=images),
                ACTIVATIONS[spec.activation](),
                weight,
            ]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the sum of the input and the branch."""
        total: Tensor = x + self.body(x)
        return total


def _residual(spec: Spec) -> nn.Module:
    images = task(spec.task).x.dim() == 4
    blocks = [Block(spec, images=images) for _ in range(spec.depth)]
    if images:
        head = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * spec.width, 4)]
        return nn.Sequential(nn.Conv2d(1, spec.width, 3, padding=1), *blocks, *head)
    stem = nn.Linear(SIDE * SIDE, spec.width)
    return nn.Sequential(stem, *blocks, nn.Linear(spec.width, 4))


class Recurrent(nn.Module):
    """Reads letters and answers from its last state."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        kinds = {"vanilla": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
        self.cell = kinds[spec.variant](LETTERS, spec.width, batch_first=True)
        self.head = nn.Linear(spec.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits after the last letter."""
        states, _ = self.cell(x)
        answer: Tensor = self.head(states[:, -1])
        return answer


class Celled(nn.Module):
    """A gated recurrent net, written as a loop over one of torch's cells."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        kinds = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}
        self.cell = kinds[spec.variant](LETTERS, spec.width)
        self.head = nn.Linear(spec.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits after the last letter."""
        state = None
        for letter in x.unbind(1):
            state = self.cell(letter, state)
        answer: Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return answer


def _unrolled(spec: Spec) -> nn.Module:
    return Celled(spec) if spec.variant else Unrolled(spec)


class Unrolled(nn.Module):
    """A vanilla recurrent net, written as a loop over one shared layer."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.inp = nn.Linear(LETTERS, spec.width)
        self.rec = nn.Linear(spec.width, spec.width)
        self.act = ACTIVATIONS[spec.activation]()
        self.head = nn.Linear(spec.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits after the last letter."""
        state = x.new_zeros(len(x), self.rec.out_features)
        for letter in x.unbind(1):
            state = self.act(self.inp(letter) + self.rec(state))
        answer: Tensor = self.head(state)
        return answer


class Transformer(nn.Module):
    """Eight rows of a picture as tokens, through pre- or post-LN blocks."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.embed = nn.Linear(SIDE, spec.width)
        self.position = nn.Parameter(0.1 * torch.randn(SIDE, spec.width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                spec.width,
                2,
                2 * spec.width,
                dropout=0.0,
                batch_first=True,
                norm_first=spec.variant == "pre",
            )
            for _ in range(spec.depth)
        )
        self.head = nn.Linear(spec.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits from the mean over the tokens."""
        x = self.embed(x) + self.position
        for block in self.blocks:
            x = block(x)
        answer: Tensor = self.head(x.mean(1))
        return answer


class UNet(nn.Module):
    """Down, up, and a skip at each level (two levels fit 8×8)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        widths = [spec.width * 2**level for level in range(spec.depth + 1)]
        self.stem = self._stage(spec, 1, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(self._stage(spec, a, b) for a, b in pairs)
        self.up = nn.ModuleList(self._stage(spec, a + b, a) for a, b in pairs[::-1])
        self.head = nn.Conv2d(widths[0], 2, 1)

    @staticmethod
    def _stage(spec: Spec, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            *_norm(spec, outputs, images=True),
            ACTIVATIONS[spec.activation](),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns two logits a pixel."""
        x = self.stem(x)
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(F.max_pool2d(x, 2))
        for stage in self.up:
            x = stage(torch.cat((F.interpolate(x, scale_factor=2.0), skips.pop()), 1))
        answer: Tensor = self.head(x)
        return answer


def _discriminator(spec: Spec) -> nn.Module:
    layers: list[nn.Module] = []
    width, side = 1, SIDE
    for level in range(spec.depth):
        stride = 2 if side > 2 else 1
        side //= stride
        layers += [
            nn.Conv2d(width, spec.width, 3, stride=stride, padding=1),
            *(_norm(spec, spec.width, images=True) if level else ()),
            ACTIVATIONS[spec.activation](),
        ]
        width = spec.width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, 2))


def _autoencoder(spec: Spec) -> nn.Module:
    sizes = [SIDE * SIDE, *[spec.width] * spec.depth, spec.width // 2]
    sizes += sizes[-2::-1]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[spec.activation]()]
    return nn.Sequential(*layers[:-1])


class Functional(nn.Module):
    """No submodules at all: parameters and functions."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        sizes = [SIDE * SIDE, *[spec.width] * spec.depth, 4]
        pairs = list(pairwise(sizes))
        layers = [nn.Linear(a, b) for a, b in pairs]
        self.weights = nn.ParameterList(layer.weight for layer in layers)
        self.biases = nn.ParameterList(layer.bias for layer in layers)
        self.act = FUNCTIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = self.act(F.linear(x, weight, bias))
        return F.linear(x, self.weights[-1], self.biases[-1])


class Shared(nn.Module):
    """One hidden layer, applied ``depth`` times."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.stem = nn.Linear(SIDE * SIDE, spec.width)
        self.layer = nn.Linear(spec.width, spec.width)
        self.act = ACTIVATIONS[spec.activation]()
        self.head = nn.Linear(spec.width, 4)
        self.depth = spec.depth

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        x = self.act(self.stem(x))
        for _ in range(self.depth):
            x = self.act(self.layer(x))
        answer: Tensor = self.head(x)
        return answer


class Detached(nn.Module):
    """Two branches that are added; the gradient of one is cut."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.open = _branch(spec)
        self.cut = _branch(spec)
        self.head = nn.Linear(spec.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        answer: Tensor = self.head(self.open(x) + self.cut(x).detach())
        return answer


def _branch(spec: Spec) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = SIDE * SIDE
    for _ in range(spec.depth):
        layers += [nn.Linear(width, spec.width), ACTIVATIONS[spec.activation]()]
        width = spec.width
    return nn.Sequential(*layers)


FAMILIES: dict[str, Callable[[Spec], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "residual": _residual,
    "recurrent": Recurrent,
    "unrolled": _unrolled,
    "transformer": Transformer,
    "unet": UNet,
    "discriminator": _discriminator,
    "autoencoder": _autoencoder,
    "functional": Functional,
    "shared": Shared,
    "detached": Detached,
}


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.dim() >= 2]


def _each(function: Callable[[Tensor], Any]) -> Callable[[nn.Module], None]:
    def apply(model: nn.Module) -> None:
        for weight in _weights(model):
            function(weight)

    return apply


def _scale(factor: float) -> Callable[[nn.Module], None]:
    return _each(lambda weight: weight.data.mul_(factor))


def _dead(model: nn.Module) -> None:
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    for bias in biases[:-1]:
        nn.init.constant_(bias, DEAD_BIAS)


INITS: dict[str, Callable[[nn.Module], None]] = {
    "default": lambda model: None,
    "xavier": _each(nn.init.xavier_uniform_),
    "he": _each(lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu")),
    "small": _scale(SHRINK),
    "large": _scale(GROW),
    "huge": _scale(HUGE),
    "dead": _dead,
}
