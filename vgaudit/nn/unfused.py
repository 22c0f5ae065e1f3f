"""LSTM, GRU and RNN whose activations are modules, with the parameters they had.

The fused kernels compute their activations inside; nothing can be put in their place.
Here the recurrence is a loop over time steps: the same parameters under the same names,
the same arguments and results, up to rounding; two to five times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vgaudit.errors import CannotRewrite

State = tuple[Tensor, ...]
"""h, and c of an LSTM: ``[batch, hidden]`` each."""


class Unfused(nn.RNNBase):
    """A recurrent layer that runs step by step.

    Attributes:
        acts: the activations of each layer and direction: ``candidate_l0``, and
            ``output_l0`` of an LSTM. Gates keep their sigmoid.
    """

    acts: nn.ModuleDict

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Returns what the fused layer returns: output, and the last state."""
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        if hx is not None and not batched:
            hx = _mapped(hx, lambda state: state.unsqueeze(1))
        x = x.transpose(0, 1) if self.batch_first else x
        out, last = self._layers(x, self._first(x, hx), None)
        out = out.transpose(0, 1) if self.batch_first else out
        if not batched:
            out = out.squeeze(0 if self.batch_first else 1)
            last = tuple(state.squeeze(1) for state in last)
        return out, self._given_back(last)

    def _packed(self, given: PackedSequence, hx: Any) -> Any:
        """Runs sequences of several lengths, in the order in which they are packed."""
        bare = PackedSequence(given.data, given.batch_sizes)
        x, lengths = pad_packed_sequence(bare)
        if hx is not None and given.sorted_indices is not None:
            order = given.sorted_indices
            hx = _mapped(hx, lambda state: state.index_select(1, order))
        steps = torch.arange(x.shape[0]).unsqueeze(1)
        mask = (steps < lengths).to(x.device).unsqueeze(2)
        out, last = self._layers(x, self._first(x, hx), mask)
        packed = pack_padded_sequence(out, lengths)
        if given.unsorted_indices is not None:
            back = given.unsorted_indices
            last = tuple(state.index_select(1, back) for state in last)
        again = PackedSequence(
            packed.data,
            packed.batch_sizes,
            given.sorted_indices,
            given.unsorted_indices,
        )
        return again, self._given_back(last)

    def _layers(
        self, x: Tensor, first: list[State], mask: Tensor | None
    ) -> tuple[Tensor, State]:
        """Runs all layers on ``[time, batch, features]``."""
        ends: list[State] = []
        ways = 2 if self.bidirectional else 1
        for level in range(self.num_layers):
            found = []
            for way in range(ways):
                place = level * ways + way
                suffix = f"_l{level}" + ("_reverse" if way else "")
                out, end = self._direction(x, first[place], suffix, mask)
                found.append(out)
                ends.append(end)
            x = found[0] if ways == 1 else torch.cat(found, 2)
            if self.dropout and level + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(states) for states in zip(*ends, strict=True))

    def _direction(
        self, x: Tensor, state: State, suffix: str, mask: Tensor | None
    ) -> tuple[Tensor, State]:
        """Runs one layer in one direction; masked steps leave the state as it is."""
        inputs = F.linear(x, self._of("weight_ih", suffix), self._bias("ih", suffix))
        outputs: list[Tensor] = [inputs] * len(inputs)
        for step in self._order(len(inputs), suffix):
            new = self._cell(inputs[step], state, suffix)
            if mask is not None:
                pairs = zip(new, state, strict=True)
                new = tuple(torch.where(mask[step], a, b) for a, b in pairs)
            state = new
            kept = state[0]
            outputs[step] = kept if mask is None else kept * mask[step]
        return torch.stack(outputs), state

    def _order(self, steps: int, suffix: str) -> Iterator[int]:
        backwards = suffix.endswith("_reverse")
        return iter(reversed(range(steps)) if backwards else range(steps))

    def _cell(self, x: Tensor, state: State, suffix: str) -> State:
        """Returns the next state from W_ih·x + b_ih and the state."""
        raise NotImplementedError

    def _recurrent(self, h: Tensor, suffix: str) -> Tensor:
        return F.linear(h, self._of("weight_hh", suffix), self._bias("hh", suffix))

    def _act(self, name: str, suffix: str) -> nn.Module:
        return self.acts[f"{name}{suffix}"]

    def _of(self, name: str, suffix: str) -> Tensor:
        return cast(Tensor, getattr(self, name + suffix))

    def _bias(self, kind: str, suffix: str) -> Tensor | None:
        return self._of(f"bias_{kind}", suffix) if self.bias else None

    def _first(self, x: Tensor, hx: Any) -> list[State]:
        """Returns the state before the first step, per layer and direction."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        if hx is None:
            sizes = [self.proj_size or self.hidden_size]
            sizes += [self.hidden_size] if isinstance(self, nn.LSTM) else []
            zeros = tuple(x.new_zeros(x.shape[1], size) for size in sizes)
            return [zeros] * count
        given = hx if isinstance(hx, tuple) else (hx,)
        return [tuple(state[place] for state in given) for place in range(count)]

    def _given_back(self, last: State) -> Any:
        return last if isinstance(self, nn.LSTM) else last[0]


class UnfusedLSTM(Unfused, nn.LSTM):
    """``nn.LSTM`` step by step; see ``Unfused``."""

    def _cell(self, x: Tensor, state: State, suffix: str) -> State:
        h, c = state
        gates = (x + self._recurrent(h, suffix)).chunk(4, 1)
        enter, forget, out = (torch.sigmoid(gates[place]) for place in (0, 1, 3))
        c = forget * c + enter * self._act("candidate", suffix)(gates[2])
        h = out * self._act("output", suffix)(c)
        if self.proj_size:
            h = F.linear(h, self._of("weight_hr", suffix))
        return h, c


class UnfusedGRU(Unfused, nn.GRU):
    """``nn.GRU`` step by step; see ``Unfused``."""

    def _cell(self, x: Tensor, state: State, suffix: str) -> State:
        (h,) = state
        from_x, from_h = x.chunk(3, 1), self._recurrent(h, suffix).chunk(3, 1)
        reset = torch.sigmoid(from_x[0] + from_h[0])
        keep = torch.sigmoid(from_x[1] + from_h[1])
        new = self._act("candidate", suffix)(from_x[2] + reset * from_h[2])
        return ((1 - keep) * new + keep * h,)


class UnfusedRNN(Unfused, nn.RNN):
    """``nn.RNN`` step by step; see ``Unfused``."""

    def _cell(self, x: Tensor, state: State, suffix: str) -> State:
        (h,) = state
        return (self._act("candidate", suffix)(x + self._recurrent(h, suffix)),)


_UNFUSED: dict[type[nn.RNNBase], type[Unfused]] = {
    nn.LSTM: UnfusedLSTM,
    nn.GRU: UnfusedGRU,
    nn.RNN: UnfusedRNN,
}


def unfuse(module: nn.Module) -> Unfused:
    """Opens a recurrent layer, in place, by changing its class.

    The parameters stay the same objects under the same names; only activations
    without parameters are added.

    Returns:
        The same object.

    Raises:
        CannotRewrite: no LSTM, GRU or RNN, or a subclass.
    """
    made = _UNFUSED.get(type(module))  # type: ignore[arg-type]
    if made is None:
        raise CannotRewrite(
            f"unfusing {type(module).__name__}",
            hint="it works on torch.nn.LSTM, GRU and RNN, and on no subclass",
        )
    layer = cast(Any, module)
    kind = nn.ReLU if layer.mode == "RNN_RELU" else nn.Tanh
    names = ("candidate", "output") if made is UnfusedLSTM else ("candidate",)
    ways = ("", "_reverse") if layer.bidirectional else ("",)
    layer.acts = nn.ModuleDict(
        {
            f"{name}_l{level}{way}": kind()
            for level in range(layer.num_layers)
            for way in ways
            for name in names
        }
    )
    layer.__class__ = made
    return cast(Unfused, layer)


def _mapped(hx: Any, change: Any) -> Any:
    return tuple(map(change, hx)) if isinstance(hx, tuple) else change(hx)
