"""Models whose inputs must be found, each with what it takes.

The expected form is what the author of such a model would write down; sizes that
the model leaves open are the documented preferences (28 for grey images, 32 for
colour, 16 for sequences, 128 for signals).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet(nn.Module):
    """The tutorial's network: ``view(-1, 400)`` would let other sizes through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).view(-1, 400)
        return self.fc2(F.relu(self.fc1(x)))


def fixed_size(side: int) -> nn.Module:
    """Three unpadded convolutions and a linear layer that fits one size only."""
    left = side
    for _ in range(3):
        left = (left - 2) // 2
    layers: list[nn.Module] = []
    for before, after in ((3, 4), (4, 4), (4, 4)):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * left**2, 2))


class Atari(nn.Sequential):
    """DQN's network, for 84 × 84 frames."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(4, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3136, 6),
        )


class AnySize(nn.Module):
    """Five poolings and a global mean: runs on 32, sees something from 64 on."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 8), (8, 8), (8, 8), (8, 8), (8, 8)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class VggForCifar(AnySize):
    """The same with a flat head: 32 only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Mixer(nn.Module):
    """Mixes 196 tokens: 224 only, and registered after the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.tokens = nn.Linear(196, 196)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(self.patches(x).flatten(2)).mean(2))


class UNet(nn.Module):
    """Four levels and a time: sizes must divide by 8, the time goes in as a number."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((1, 8), (8, 8), (8, 8), (8, 8))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in widths)
        self.up = nn.ModuleList(nn.ConvTranspose2d(8, 8, 2, 2) for _ in range(3))
        self.time = nn.Linear(1, 8)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        skips = []
        for level, layer in enumerate(self.down):
            x = F.relu(layer(F.max_pool2d(x, 2) if level else x))
            skips.append(x)
        x = x + self.time(t[:, None].float())[:, :, None, None]
        for layer, skip in zip(self.up, skips[2::-1], strict=True):
            x = layer(x) + skip
        return self.out(x)


class Siamese(nn.Module):
    """Two inputs through one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.trunk(a) - self.trunk(b)).norm(dim=1)


class ImageAndNumbers(nn.Module):
    """Registered in another order than called."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Linear(7, 4)
        self.image = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(12, 2)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        seen = self.image(image).mean((2, 3))
        return self.head(torch.cat([seen, self.numbers(numbers)], 1))


class Recommender(nn.Module):
    """One id for each of two tables: sequences would not fit the head."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(10, 4)
        self.items = nn.Embedding(20, 4)
        self.head = nn.Linear(8, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.head(torch.cat([self.users(user), self.items(item)], dim=1))


class CharacterRnn(nn.Module):
    """The tutorial's cell: input and state are concatenated, 57 + 128."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 128
        self.i2h = nn.Linear(57 + 128, 128)
        self.i2o = nn.Linear(128, 18)

    def forward(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.i2h(torch.cat((input, hidden), 1))
        return self.i2o(hidden), hidden


class ConditionalDiscriminator(nn.Module):
    """An image flattened beside the embedding of its label: 784 + 784."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(10, 784)
        self.net = nn.Sequential(nn.Linear(1568, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def forward(self, img: Tensor, labels: Tensor) -> Tensor:
        return self.net(torch.cat([img.flatten(1), self.label(labels)], 1))


class TimeFirst(nn.Module):
    """An LSTM as torch has it by default: time before batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 7, 2, bidirectional=True)
        self.head = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][-1])


class Permuted(nn.Module):
    """The same layer, but the model turns batch first into time first."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.permute(1, 0, 2))[0][-1])


class ShortContext(nn.Module):
    """A language model with room for 8 positions, and optional targets."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(65, 32)
        self.positions = nn.Embedding(8, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 65)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
        place = torch.arange(idx.shape[1])
        return self.head(self.block(self.tokens(idx) + self.positions(place)))


class Translator(nn.Module):
    """Two sequences and a mask of their length."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.source = nn.Embedding(11, 32)
        self.target = nn.Embedding(13, 32)

    def forward(self, src: Tensor, tgt: Tensor, tgt_mask: Tensor) -> Tensor:
        return self.net(self.source(src), self.target(tgt), tgt_mask=tgt_mask)


class Packed(nn.Module):
    """Text with its lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.gru = nn.GRU(8, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(text), text_lengths.cpu(), batch_first=True
        )
        return self.head(self.gru(packed)[1][-1])


class Captioner(nn.Module):
    """An image and a text; a plain number with a default in between."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.embedding = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 30)

    def forward(self, images: Tensor, captions: Tensor, steps: int = 3) -> Tensor:
        first = self.encoder(images)[:, None]
        sequence = torch.cat([first, self.embedding(captions)], 1)
        return self.head(self.lstm(sequence)[0])


class Graph(nn.Module):
    """Node features and an adjacency of nodes × nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 6)
        self.second = nn.Linear(6, 3)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return self.second(adj @ torch.relu(adj @ self.first(x)))


class BareParameters(nn.Module):
    """No layer at all, only weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 5))
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class TwoFields(TypedDict):
    a: Tensor
    b: Tensor


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@dataclass
class Record:
    a: Tensor
    b: Tensor


class _TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(5, 4)


class TakesTypedDict(_TwoLayers):
    def forward(self, batch: TwoFields) -> Tensor:
        return self.first(batch["a"]) + self.second(batch["b"])


class TakesAnyDict(_TwoLayers):
    """No annotation: the keys are seen as they are used."""

    def forward(self, batch):  # type: ignore[no-untyped-def]
        return self.first(batch["a"]) + self.second(batch["b"])


class TakesNamedTuple(_TwoLayers):
    def forward(self, pair: Pair) -> Tensor:
        return self.first(pair.a) + self.second(pair.b)


class TakesDataclass(_TwoLayers):
    def forward(self, record: Record) -> Tensor:
        return self.first(record.a) + self.second(record.b)


class TakesTuple(_TwoLayers):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.first(pair[0]) + self.second(pair[1])


class ByNameOnly(_TwoLayers):
    def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
        return self.first(a) + self.second(b)


class DataDependent(nn.Module):
    """Unpacks four dimensions and looks at values: no trace, no fake run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, _, _, _ = x.shape
        if x.sum() > 0:
            x = x * 2
        return self.layer(x.reshape(n, -1))


class Physics(nn.Module):
    """Differentiates in its forward, so it cannot run under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        return slope


class Spectrogram(nn.Module):
    """80 bands over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(80, 16, 3)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.conv(x).transpose(1, 2))[0][:, -1])


class Waveform(nn.Module):
    """A raw signal without channel, which the model adds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 16, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        samples, _ = x.shape
        return self.head(self.conv(x.view(samples, 1, -1)).mean(2))


class Generator(nn.Sequential):
    """DCGAN's: a latent vector as a picture of one pixel."""

    def __init__(self) -> None:
        super().__init__(
            nn.ConvTranspose2d(100, 8, 4, 1, 0),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
            nn.Tanh(),
        )


class WithoutInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self) -> Tensor:
        return self.weight.sum()


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(8, 3)
        self.norm = nn.LazyBatchNorm2d()
        self.head = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).flatten(1))


class Frozen(nn.Module):
    """Its forward depends on plain attributes and changes them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("hidden", torch.zeros(1), persistent=False)
        self.plain = torch.zeros(2)
        self.history: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.hidden = self.hidden + 1
        self.plain += 1
        self.history.append(x)
        self.last = x
        self.layer.weight.data.clamp_(-0.1, 0.1)
        x = F.dropout(self.norm(self.layer(x)), 0.5, self.training)
        return self.spectral(x)


@dataclass(frozen=True)
class Case:
    """A model and the text of the form that must be found for it."""

    build: Callable[[], nn.Module]
    form: str


CASES: dict[str, Case] = {
    "lenet": Case(LeNet, "float32 8x3x32x32"),
    "atari": Case(Atari, "float32 4x4x84x84"),
    "any_size": Case(AnySize, "float32 8x3x64x64"),
    "vgg_for_cifar": Case(VggForCifar, "float32 8x3x32x32"),
    "mixer": Case(Mixer, "float32 4x3x224x224"),
    "unet": Case(UNet, "float32 8x1x32x32, int64 8 below 1000"),
    "siamese": Case(Siamese, "float32 8x1x28x28, float32 8x1x28x28"),
    "image_and_numbers": Case(ImageAndNumbers, "float32 8x3x32x32, float32 8x7"),
    "recommender": Case(Recommender, "int64 8 below 10, int64 8 below 20"),
    "character_rnn": Case(CharacterRnn, "float32 8x57, float32 8x128"),
    "discriminator": Case(ConditionalDiscriminator, "float32 8x784, int64 8 below 10"),
    "time_first": Case(TimeFirst, "float32 16x8x5"),
    "permuted": Case(Permuted, "float32 8x16x5"),
    "short_context": Case(ShortContext, "int64 8x8 below 65"),
    "translator": Case(
        Translator, "int64 8x16 below 11, int64 8x16 below 13, bool 16x16"
    ),
    "packed": Case(Packed, "int64 8x16 below 50, int64 8"),
    "captioner": Case(Captioner, "float32 8x3x32x32, int64 8x16 below 30"),
    "graph": Case(Graph, "float32 8x9, float32 8x8"),
    "bare_parameters": Case(BareParameters, "float32 8x12"),
    "typed_dict": Case(TakesTypedDict, "{a: float32 8x3, b: float32 8x5}"),
    "any_dict": Case(TakesAnyDict, "{a: float32 8x3, b: float32 8x5}"),
    "named_tuple": Case(TakesNamedTuple, "(float32 8x3, float32 8x5)"),
    "dataclass": Case(TakesDataclass, "{a: float32 8x3, b: float32 8x5}"),
    "tuple": Case(TakesTuple, "(float32 8x3, float32 8x5)"),
    "by_name_only": Case(ByNameOnly, "a=float32 8x3, b=float32 8x5"),
    "data_dependent": Case(DataDependent, "float32 8x1x28x28"),
    "physics": Case(Physics, "float32 8x2"),
    "spectrogram": Case(Spectrogram, "float32 8x80x128"),
    "waveform": Case(Waveform, "float32 8x128"),
    "generator": Case(Generator, "float32 8x100x1x1"),
    "without_input": Case(WithoutInput, "no input"),
    "lazy": Case(Lazy, "float32 8x3x32x32"),
    "frozen": Case(Frozen, "float32 8x6"),
    "bilinear": Case(lambda: nn.Bilinear(3, 4, 5), "float32 8x3, float32 8x4"),
    "attention": Case(
        lambda: nn.MultiheadAttention(16, 4, batch_first=True, kdim=8, vdim=4),
        "float32 8x16x16, float32 8x16x8, float32 8x16x4",
    ),
    "lstm": Case(lambda: nn.LSTM(3, 4), "float32 16x8x3"),
    "cell": Case(lambda: nn.GRUCell(3, 4), "float32 8x3"),
    "decoder_layer": Case(
        lambda: nn.TransformerDecoderLayer(16, 2, 32),
        "float32 16x8x16, float32 16x8x16",
    ),
    "norm_first": Case(
        lambda: nn.Sequential(nn.BatchNorm1d(9), nn.Linear(9, 2)), "float32 8x9"
    ),
    "layer_norm_first": Case(
        lambda: nn.Sequential(nn.LayerNorm([4, 5]), nn.Flatten()), "float32 8x4x5"
    ),
    "embedding_bag": Case(lambda: nn.EmbeddingBag(9, 2), "int64 8x16 below 9"),
    "volume": Case(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.Flatten(2)),
        "float32 4x1x16x64x64",
    ),
    "signal": Case(
        lambda: nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 4, 3)),
        "float32 8x1x128",
    ),
    "channels_of_a_norm": Case(
        lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)),
        "float32 8x4x32x32",
    ),
    "no_parameters": Case(nn.Identity, "float32 8x16"),
    "data_parallel": Case(lambda: nn.DataParallel(LeNet()), "float32 8x3x32x32"),
    "compiled": Case(lambda: torch.compile(LeNet()), "float32 8x3x32x32"),
    "double": Case(lambda: nn.Linear(3, 3).double(), "float64 8x3"),
    "bfloat16": Case(lambda: nn.Linear(3, 3).bfloat16(), "bfloat16 8x3"),
}
"""By name."""
