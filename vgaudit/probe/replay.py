"""Fused recurrent kernels run again step by step: gates, and the gradient by lag.

A fused kernel (``nn.RNN``, ``nn.LSTM``, ``nn.GRU``) is one node of the autograd graph.
From its weights and its input the states follow by the equations of PyTorch's manual,
and the gradient of s = ⟨v, h_T⟩ with a random v follows from the states, one step after
the other and in closed form. All of it in float64, scaled where it would underflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vgaudit.flow import GateFlow
from vgaudit.probe.activations import KNOWN, SATURATION
from vgaudit.probe.lags import SAMPLES, Lags, direction, sample_logs

LONGEST = 1024
"""Steps that are run again; of a longer sequence the first ones."""

_VALUES = 1 << 22
_AGREES = 1e-2
_SMALL, _SCALE = -120.0, 100
_GATES = {
    "lstm": (("input", "forget", "cell", "output"), "sigmoid sigmoid tanh sigmoid"),
    "gru": (("reset", "update", "new"), "sigmoid sigmoid tanh"),
    "rnn_tanh": (("state",), "tanh"),
    "rnn_relu": (("state",), "relu"),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """The arguments of one call of a fused kernel.

    Attributes:
        kind: ``lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``.
        x: input, [steps, samples, features].
        states: initial states, each [layers · directions, samples, size].
        weights: by layer and direction: w_ih, w_hh, biases (if any), w_hr (if any).
        biased: there are biases.
        directions: 1 or 2.
        start: number of the first sample in the scan.
    """

    kind: str
    x: Tensor
    states: tuple[Tensor, ...]
    weights: tuple[tuple[Tensor, ...], ...]
    biased: bool
    directions: int
    start: int = 0


def kernel(kind: str, args: Sequence[Any], start: int = 0) -> Kernel:
    """Returns the call of ``torch.lstm`` and its kin that ``args`` describe.

    Of packed sequences those of full length are taken. As many samples as a replay
    keeps in 32 MiB, 32 at most of a scan: none where the batches before had as many.

    Raises:
        ValueError: the arguments have another form.
    """
    packed = isinstance(args[1], Tensor) and isinstance(args[3], (list, tuple))
    if packed:
        x, sizes, given, flat, biased, layers, _, _, bidirectional = args[:9]
        x = _unpacked(x, sizes)
    else:
        x, given, flat, biased, layers, _, _, bidirectional, batch_first = args[:9]
        x = x.transpose(0, 1) if batch_first else x
    if x.dim() != 3:
        raise ValueError(f"an input of {x.dim()} dimensions")
    states = (given,) if isinstance(given, Tensor) else tuple(given)
    directions = 2 if bidirectional else 1
    count = len(flat) // (layers * directions)
    weights = [tuple(flat[i : i + count]) for i in range(0, len(flat), count)]
    x = x[:LONGEST]
    gates = weights[0][1].shape[0]
    most = max(min(SAMPLES, _VALUES // max(len(x) * gates, 1)), 1)
    kept = min(max(most - start, 0), x.shape[1])
    return Kernel(
        kind=kind,
        x=x[:, :kept].detach().double(),
        states=tuple(state[:, :kept].detach().double() for state in states),
        weights=tuple(tuple(w.detach().double() for w in one) for one in weights),
        biased=bool(biased),
        directions=directions,
        start=start,
    )


def _unpacked(data: Tensor, sizes: Tensor) -> Tensor:
    """Returns the sequences of full length: the first ones of every step."""
    counts = sizes.tolist()
    full = counts[-1]
    starts = [sum(counts[:step]) for step in range(min(len(counts), LONGEST))]
    return torch.stack([data[start : start + full] for start in starts])


def replay(call: Kernel, output: Tensor | None, seed: int) -> dict[str, Lags]:
    """Returns the figures of every layer and direction, by suffix of its name.

    Args:
        call: what was called.
        output: what the kernel returned, [steps, samples, size], to compare with.
        seed: of the random projection.

    Raises:
        ValueError: the replay does not give what the kernel gave.
    """
    found: dict[str, Lags] = {}
    x = call.x
    layers = len(call.weights) // call.directions
    for layer in range(layers):
        made = []
        for way in range(call.directions):
            place = layer * call.directions + way
            run = _Run(call, place, x.flip(0) if way else x)
            name = f"l{layer}" if layers > 1 else ""
            name = f"{name} reverse".strip() if way else name
            found[name] = run.lags(seed + place)
            made.append(run.output.flip(0) if way else run.output)
        x = torch.cat(made, -1)
    if output is not None and len(output) == len(x):
        given = output.detach()[:, : x.shape[1]].double()
        away = float(torch.linalg.vector_norm(given - x))
        if not away <= _AGREES * float(torch.linalg.vector_norm(x)) + 1e-9:
            raise ValueError("run again step by step, it gives other states")
    return found


@dataclass(slots=True)
class _Step:
    """What the backward pass needs of one step: gates, and the states before it."""

    gates: tuple[Tensor, ...]
    before: tuple[Tensor, ...]
    extra: Tensor


@dataclass(slots=True)
class _Run:
    """One layer in one direction, run again."""

    call: Kernel
    place: int
    x: Tensor
    steps: list[_Step] = field(init=False)
    output: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Runs all steps."""
        w_ih, w_hh, *rest = self.call.weights[self.place]
        zero = w_ih.new_zeros(len(w_ih))
        b_ih, b_hh = rest[:2] if self.call.biased else (zero, zero)
        given = self.x @ w_ih.T + b_ih
        state = tuple(one[self.place] for one in self.call.states)
        self.steps, states = [], []
        for now in given:
            step, state = self._forward(now, state[0] @ w_hh.T + b_hh, state)
            self.steps.append(step)
            states.append(state[0])
        self.output = torch.stack(states)

    @property
    def _projection(self) -> Tensor | None:
        rest = self.call.weights[self.place][2:]
        one = len(rest) == (3 if self.call.biased else 1)
        return rest[-1] if one else None

    def _forward(
        self, a: Tensor, b: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[_Step, tuple[Tensor, ...]]:
        """Returns one step and its new state, from W_ih·x and W_hh·h."""
        kind, h = self.call.kind, state[0]
        if kind == "lstm":
            i, f, g, o = (a + b).chunk(4, -1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            cell = f * state[1] + i * g
            rail = cell.tanh()
            new = o * rail
            if self._projection is not None:
                new = new @ self._projection.T
            return _Step((i, f, g, o), state, rail), (new, cell)
        if kind == "gru":
            (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
            r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
            n = (an + r * bn).tanh()
            return _Step((r, z, n), state, bn), ((1 - z) * n + z * h,)
        new = (a + b).tanh() if kind == "rnn_tanh" else (a + b).relu()
        return _Step((new,), state, new), (new,)

    def _backward(self, step: _Step, dh: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of s at the states before a step."""
        w_hh = self.call.weights[self.place][1]
        if self.call.kind == "lstm":
            i, f, g, o = step.gates
            if self._projection is not None:
                dh = dh @ self._projection
            dc = dc + dh * o * (1 - step.extra**2)
            parts = (
                dc * g * i * (1 - i),
                dc * step.before[1] * f * (1 - f),
                dc * i * (1 - g**2),
                dh * step.extra * o * (1 - o),
            )
            return torch.cat(parts, -1) @ w_hh, dc * f
        if self.call.kind == "gru":
            r, z, n = step.gates
            dn = dh * (1 - z) * (1 - n**2)
            dz = dh * (step.before[0] - n) * z * (1 - z)
            dr = dn * step.extra * r * (1 - r)
            return torch.cat((dr, dz, dn * r), -1) @ w_hh + dh * z, dc
        (out,) = step.gates
        slope = 1 - out**2 if self.call.kind == "rnn_tanh" else (out > 0).double()
        return (dh * slope) @ w_hh, dc

    def lags(self, seed: int) -> Lags:
        """Returns ‖∂s/∂h_{T−lag}‖ for every lag, and the gates."""
        dh = direction(self.output[-1], seed, self.call.start)
        dc = torch.zeros_like(self.call.states[-1][self.place])
        logs, shift = [sample_logs(dh)], 0
        for step in reversed(self.steps[1:]):
            dh, dc = self._backward(step, dh, dc)
            found = sample_logs(dh)
            logs.append([value - shift for value in found])
            if -math.inf < max(found) < _SMALL:
                dh, dc, shift = dh * 10.0**_SCALE, dc * 10.0**_SCALE, shift + _SCALE
        return Lags(
            kind=self.call.kind.replace("_", "-"),
            steps=len(self.x),
            logs=logs,
            gates=tuple(self._gates()),
        )

    def _gates(self) -> Iterator[GateFlow]:
        names, kinds = _GATES[self.call.kind]
        for place, (name, kind) in enumerate(zip(names, kinds.split(), strict=True)):
            values = torch.stack([step.gates[place] for step in self.steps])
            low, high = _rails(kind, values)
            yield GateFlow(
                name=name,
                kind=kind,
                mean=float(values.mean()),
                saturated_low=low,
                saturated_high=high,
            )


def _rails(kind: str, values: Tensor) -> tuple[float, float]:
    """Returns the shares of values on the low and on the high rail."""
    if kind == "relu":
        return float((values <= 0).double().mean()), 0.0
    form = KNOWN[kind].slope
    assert form is not None
    flat = form(values, values.clone()) < SATURATION * KNOWN[kind].slope_max
    below = values < (0.5 if kind == "sigmoid" else 0.0)
    low = (flat & below).double().mean()
    return float(low), float((flat & ~below).double().mean())
