"""Auto-rotated LSTM, GRU and RNN: every gate row scaled, the fused kernel kept.

A gate's pre-activation is W_ih·x + b_ih + W_hh·h + b_hh; scaling the same row of
all four tensors scales it, so the plain layer computes a rotated one exactly.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn.denominator import Denominator, Part, compute
from vgaudit.nn.inputs import Inputs
from vgaudit.nn.rotation import AutoRotation, widen

_GATES = {
    "LSTM": (4.0, 4.0, 2.0, 4.0),
    "GRU": (4.0, 4.0, 2.0),
    "RNN_TANH": (2.0,),
}
"""L of the gates, in torch's order of rows: 4 for sigmoid, 2 for tanh."""


class RecurrentRotation(AutoRotation):
    """Auto-rotation of recurrent layers.

    The hidden state lies in (−1, 1). ``inputs`` says what reaches the first
    layer. The candidate of a GRU is bounded with its reset gate at 1. L, D and
    ρ have one row per layer and direction, ``[layers·directions, gates·hidden]``.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    proj_size: int
    dropout: float
    bidirectional: bool
    bias: bool
    _flat_weights_names: list[str]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the plain layer returns, with every gate row scaled."""
        return self.run_plain(self.rotated(), *args, **kwargs)

    def run_plain(self, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Runs the plain class's forward with other weights, on a stand-in."""
        twin = cast(Any, self.plain_class.__new__(self.plain_class))
        twin.__dict__.update(self.__dict__)
        mine = {**self._parameters, **weights}
        twin.__dict__["_parameters"] = mine
        twin.__dict__["_flat_weights"] = [
            mine[name] for name in self._flat_weights_names
        ]
        return self.plain_class.forward(twin, *args, **kwargs)

    def rotated(self) -> dict[str, Tensor]:
        """Returns ρ·W_ih, ρ·W_hh, ρ·b_ih and ρ·b_hh of every layer and direction."""
        weights = {}
        for rho, suffix in zip(self.rho(), self._suffixes(), strict=True):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                parameter = self._parameters.get(kind + suffix)
                if parameter is not None:
                    factor = rho.to(parameter.dtype)
                    factor = factor.unsqueeze(1) if parameter.dim() == 2 else factor
                    weights[kind + suffix] = factor * parameter
        return weights

    def compute_denominator(self) -> Tensor:
        """Returns D per layer, direction and gate row."""
        return torch.stack(
            [self._of_cell(*place) for place in enumerate(self._suffixes())]
        )

    def units(self) -> torch.Size:
        """Returns the shape of D."""
        rows = len(_GATES[self.mode]) * self.hidden_size
        return torch.Size((len(self._suffixes()), rows))

    def default_limit(self) -> Tensor:
        """Returns 4 for sigmoid gates and 2 for tanh, in the shape of D."""
        return gate_limits(cast(nn.RNNBase, self)).expand(self.units())

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs; they are as many as the layer's or scalars.

        Raises:
            BadConfig: another number of inputs.
            CannotRewrite: a ReLU cell, whose hidden state has no range.
        """
        if self.mode not in _GATES:
            raise CannotRewrite(
                f"auto-rotation of a recurrent layer of mode {self.mode}",
                hint="its hidden state has no range; use tanh, GRU or LSTM",
            )
        if inputs.center.dim() == 1 and inputs.center.shape[0] != self.input_size:
            raise BadConfig(
                f"inputs for {inputs.center.shape[0]} features, "
                f"the layer has {self.input_size}",
                hint="give one entry per input feature, or scalars",
            )
        return inputs

    def _of_cell(self, place: int, suffix: str) -> Tensor:
        """Returns D of the gate rows of one layer and direction."""
        level = place // (2 if self.bidirectional else 1)
        center, spread = self._inputs_of(level)
        state = self._state_spread(suffix)
        parts = [
            Part(self._wide("weight_ih" + suffix), center, spread),
            Part(self._wide("weight_hh" + suffix), torch.zeros_like(state), state),
        ]
        bias = None
        if self.bias:
            bias = widen(getattr(self, "bias_ih" + suffix))
            bias = bias + widen(getattr(self, "bias_hh" + suffix))
        return compute(parts, bias, self.rotation.denominator, self.rotation.k)

    def _wide(self, name: str) -> Tensor:
        return widen(getattr(self, name)).unsqueeze(-1)

    def _inputs_of(self, level: int) -> tuple[Tensor, Tensor]:
        """Returns center and spread of what reaches a layer, by input feature."""
        if level == 0:
            if self.ar_center.dim() == 0:
                return self.ar_center, self.ar_spread
            return self.ar_center.view(1, -1, 1), self.ar_spread.view(1, -1, 1)
        below = [name for name in self._suffixes() if name.startswith(f"_l{level - 1}")]
        spreads = [self._state_spread(name) for name in below]
        spread = spreads[0] if spreads[0].dim() == 0 else torch.cat(spreads, 1)
        keep = 1.0 - min(self.dropout, 0.999)
        spread = spread / (keep if self.rotation.inputs == "range" else keep**0.5)
        return torch.zeros_like(spread), spread

    def _state_spread(self, suffix: str) -> Tensor:
        """Returns half the range of h, or its deviation if it were uniform in it."""
        ranged = self.rotation.inputs == "range"
        spread = torch.ones_like(self.ar_center.reshape(-1)[0])
        if not ranged:
            spread = spread / 3**0.5
        if self.proj_size == 0:
            return spread
        projection: Tensor = widen(getattr(self, "weight_hr" + suffix))
        norm: Tensor = torch.linalg.vector_norm(projection, 1 if ranged else 2, 1)
        return (spread * norm).view(1, -1, 1)

    def _suffixes(self) -> list[str]:
        """Returns the endings of the parameter names, one per layer and direction."""
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{level}{way}" for level in range(self.num_layers) for way in ways]


class AutoRotatedLSTM(RecurrentRotation, nn.LSTM):
    """``nn.LSTM`` with auto-rotated gates; see ``RecurrentRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.LSTM


class AutoRotatedGRU(RecurrentRotation, nn.GRU):
    """``nn.GRU`` with auto-rotated gates; see ``RecurrentRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.GRU


class AutoRotatedRNN(RecurrentRotation, nn.RNN):
    """``nn.RNN`` (tanh) with auto-rotation; see ``RecurrentRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.RNN


def gate_limits(layer: nn.RNNBase) -> Tensor:
    """Returns 4 for sigmoid gates and 2 for tanh, ``[gates·hidden]``."""
    return torch.tensor(_GATES[layer.mode]).repeat_interleave(layer.hidden_size)
