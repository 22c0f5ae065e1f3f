"""What is done to a model before it trains: a copy is converted or drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.data.seeding import generator_for, private_random
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.fixing import Start
from vgaudit.flow import GradientFlow
from vgaudit.treatments import treat
from vgaudit.treatments.copying import copied

GAINS = {"sigmoid": 4.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}
"""1/φ′(0) of a sigmoid; what keeps the variance behind tanh and ReLU."""

REMEMBER = 1.0
"""Bias of what keeps a gated cell's state: Jozefowicz et al., ICML 2015."""

REMEMBERED = 4
"""Starts that are kept: as many as there are in the search."""

Begun = tuple[nn.Module, tuple[Edit, ...]]
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}
_KEEPING = {"LSTM": 1, "LSTMCell": 1, "GRU": 1, "GRUCell": 1}
"""Which gate keeps the state, in the order in which torch stacks them."""


@dataclass(slots=True)
class Starts:
    """Begins trainings from one model; what was made last is not made again.

    Attributes:
        model: stays as it is.
        flow: of its scan; tells which activation follows which layer.
        look: a few training batches, to calibrate on.
    """

    model: nn.Module
    flow: GradientFlow
    look: Sequence[Batch]
    _made: dict[tuple[Start, int], Begun] = field(default_factory=dict)

    def begun(self, start: Start, *, seed: int) -> Begun:
        """Returns a model to train, and the edits where it was converted.

        Args:
            start: what to do.
            seed: of what is drawn; the same seed gives the same model.

        Raises:
            CannotRewrite: there is nothing that this start can change.
        """
        if (start, seed) not in self._made:
            if len(self._made) == REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[start, seed] = self._make(start, seed)
        made, edits = self._made[start, seed]
        return copied(made)[0], edits

    def _make(self, start: Start, seed: int) -> Begun:
        if start == "as-it-is":
            return self.model, ()
        if start == "reinit":
            return _drawn_anew(self.model, self.flow, seed), ()
        try:
            with private_random(seed, "start", start):
                treated = treat(self.model, self.look, ConvertOptions(to=start))
        except BadConfig as error:
            # The options are ours, not the user's: it is the model that does not fit.
            raise CannotRewrite(error.message) from error
        return treated.model, treated.edits


def _drawn_anew(model: nn.Module, flow: GradientFlow, seed: int) -> nn.Module:
    """Returns a copy with new weights: the variance of gradient and signal is kept.

    Normal weights of variance gain²·2/(fan in + fan out), biases that centre the
    inputs of what follows a sigmoid, normalizations as they are when built.
    Recurrent cells: orthogonal between states, and gates that keep them.
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
    cells = [m for m in modules.values() if isinstance(m, _RECURRENT)]
    if not layers and not cells:
        raise CannotRewrite("no layer has weights that can be drawn anew")
    for path, layer in layers.items():
        kind, before = gains.get(path, ("", ""))
        _draw(layer, GAINS.get(kind, 1.0), generator, centre=before == "sigmoid")
    for cell in cells:
        _draw_cell(cell, generator)
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


@torch.no_grad()
def _draw_cell(cell: nn.Module, generator: torch.Generator) -> None:
    """Draws a fused recurrent layer anew, gate by gate.

    States meet an orthogonal matrix in each gate (Saxe et al., ICLR 2014), inputs one
    of Glorot's; biases are zero but for that of the gate that keeps the state.
    """
    kind = type(cell).__name__
    gates = _GATES.get(kind, 1)
    for name, weight in cell.named_parameters(recurse=False):
        if weight.dim() < 2:
            weight.zero_()
            if name.startswith("bias_ih") and kind in _KEEPING:
                weight.chunk(gates)[_KEEPING[kind]].fill_(REMEMBER)
            continue
        for part in weight.chunk(gates):
            fresh = torch.randn(part.shape, generator=generator)
            if name.startswith("weight_hh") and part.shape[0] == part.shape[1]:
                part.copy_(torch.linalg.qr(fresh).Q)
            else:
                part.copy_(fresh * math.sqrt(2 / sum(part.shape)))


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
