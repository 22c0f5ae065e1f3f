"""Calls of fused recurrent kernels, as the forward pass meets them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vgaudit.probe.lags import Lags
from vgaudit.probe.recording import Recording
from vgaudit.probe.replay import kernel, replay

KERNELS = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_NONE = 1e-12


def record(
    recording: Recording, path: str, name: str, args: Sequence[Any], out: Any
) -> None:
    """Runs a call again step by step, and notes how the loss reads its output.

    Args:
        recording: takes the figures, or the reason why there are none.
        path: the module that made the call.
        name: of the kernel.
        args: its arguments.
        out: what it returned.
    """
    where = path or "the model"
    try:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            call = kernel(name, args, recording.start)
            packed = isinstance(args[1], Tensor) and isinstance(args[3], (list, tuple))
            known = not packed and not _drops(args)
            given = out[0].transpose(0, 1) if known and args[8] else out[0]
            used = call.x.shape[1]
            seed = zlib.crc32(path.encode())
            found = replay(call, given if known else None, seed) if used else {}
    except (ValueError, IndexError, TypeError, RuntimeError) as error:
        recording.unmeasured[f"{where}: gates"] = (
            f"the gates inside the fused {name} kernel: {error}"
        )
        return
    recording.fused.add(path)
    for suffix, lags in found.items():
        recording.recurrences[f"{where} {suffix}".rstrip()] = lags
    _watch_reading(list(found.items()), args, out, packed=packed)


def _drops(args: Sequence[Any]) -> bool:
    """Tells whether a kernel drops values between its layers, in a training loop.

    Which ones is known to it alone: it is run again without, as in a scan, and its
    output cannot be compared.
    """
    layers, chance, training = args[4:7]
    return bool(training) and chance > 0 and layers > 1


def _watch_reading(
    found: Sequence[tuple[str, Lags]], args: Sequence[Any], out: Any, *, packed: bool
) -> None:
    """Notes, in the backward pass, whether the loss reads the last states alone."""
    states, last = out[0], out[1]
    if not states.requires_grad:
        return
    directions = 2 if any(name.endswith("reverse") for name, _ in found) else 1
    ends = _packed_ends(args[1]) if packed else _ends(states, batch_first=args[8])

    def read(gradient: Tensor) -> None:
        energy = gradient.detach().double().square()
        for place, part in enumerate(energy.chunk(directions, -1)):
            whole, at_end = float(part.sum()), float(ends(part, place).sum())
            for name, lags in found:
                if name.endswith("reverse") == bool(place) and whole > 0:
                    lags.last_only = whole - at_end <= _NONE * whole

    def read_last(gradient: Tensor) -> None:
        for _, lags in found:
            if lags.last_only is None:
                lags.last_only = True

    states.register_hook(read)
    if isinstance(last, Tensor) and last.requires_grad:
        last.register_hook(read_last)  # type: ignore[no-untyped-call]


def _ends(states: Tensor, *, batch_first: bool) -> Callable[[Tensor, int], Tensor]:
    time = 1 if batch_first and states.dim() == 3 else 0

    def at_end(energy: Tensor, way: int) -> Tensor:
        return energy.select(time, 0 if way else energy.shape[time] - 1)

    return at_end


def _packed_ends(sizes: Tensor) -> Callable[[Tensor, int], Tensor]:
    counts: list[int] = sizes.tolist()
    starts = [sum(counts[:step]) for step in range(len(counts))]
    final = [
        starts[step] + sample
        for step, count in enumerate(counts)
        for sample in range(counts[step + 1] if step + 1 < len(counts) else 0, count)
    ]

    def at_end(energy: Tensor, way: int) -> Tensor:
        return energy[: counts[0]] if way else energy[final]

    return at_end
