"""A model in training: whole in one process, copied on each rank, or spread over all.

Whatever it is, ``plain`` is the ordinary model, which measuring, writing and the
analyses of a method work on, and ``model`` has the parameters that are optimised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vgaudit.distributed.sharding import is_sharded, shard
from vgaudit.errors import BadConfig
from vgaudit.probe.tensors import map_tensors
from vgaudit.ranks import Parallel
from vgaudit.training.course import Course
from vgaudit.training.crew import Crew, state_of
from vgaudit.training.weights import put, snapshot
from vgaudit.treatments.copying import copied


class Trainee:
    """A model in one process.

    Args:
        plain: trained in place.
    """

    def __init__(self, plain: nn.Module) -> None:
        self.plain = plain

    @property
    def model(self) -> nn.Module:
        """What is optimised and evaluated."""
        return self.plain

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model for training: the backward pass brings the whole gradient."""
        return self.model(*args, **kwargs)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Leaves the exchange of gradients to a later backward pass of the step."""
        yield

    def even(self, parts: int, _samples: int) -> int:
        """Returns in how many parts to compute so many samples."""
        return parts

    def settle(self) -> None:
        """Gives the buffers of all ranks the first rank's values; collective."""

    def weights(self) -> dict[str, Tensor]:
        """Returns a copy of all weights and buffers, on the first rank; collective."""
        return snapshot(self.plain)

    def show(self) -> nn.Module:
        """Returns ``plain`` with the present weights, on the first rank; collective."""
        return self.plain

    def whole(self, state: Any) -> Any:
        """Returns a state with whole tensors in main memory; collective."""
        return state

    def spread(self, state: Mapping[str, Any], _optimizer: Optimizer) -> Any:
        """Returns an optimizer's whole state as its parameters are spread."""
        return state


class _Shared(Trainee):
    """A model that several ranks train.

    Args:
        plain: made equal to the first rank's.
        crew: the ranks.
    """

    def __init__(self, plain: nn.Module, crew: Crew) -> None:
        super().__init__(plain)
        self._crew = crew
        crew.level(state_of(plain))

    def even(self, parts: int, samples: int) -> int:
        """Returns the same number on all ranks: each part is one operation of all."""
        return max(1, min(parts, samples // self._crew.size))

    def settle(self) -> None:
        """Takes the first rank's running statistics."""
        self._crew.level(list(self.model.buffers()))


class Replicated(_Shared):
    """A model that each rank has a copy of, under torch's DDP.

    Args:
        plain: trained in place.
        crew: the ranks.
        loose: some parameters may get no gradient; torch then looks for them anew in
            every step.
    """

    def __init__(self, plain: nn.Module, crew: Crew, *, loose: bool) -> None:
        super().__init__(plain, crew)
        self._loose = loose
        self._wrapped: nn.parallel.DistributedDataParallel | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model; DDP averages the gradients during the backward pass."""
        if self._wrapped is None:
            # Now the method has frozen what it does not train.
            self._wrapped = nn.parallel.DistributedDataParallel(
                self.plain, find_unused_parameters=self._loose, init_sync=False
            )
        return self._wrapped(*args, **kwargs)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Adds to the gradients of this rank alone."""
        if self._wrapped is None:
            yield
            return
        with self._wrapped.no_sync():
            yield

    def weights(self) -> dict[str, Tensor]:
        """Returns a copy of all weights; they are the same on all ranks."""
        self.settle()
        return snapshot(self.plain) if self._crew.first else {}

    def show(self) -> nn.Module:
        """Returns the model, with the first rank's running statistics."""
        self.settle()
        return self.plain


class Sharded(_Shared):
    """A model whose parameters are spread over the ranks, by torch's FSDP2.

    Args:
        plain: stays whole, in main memory; a copy is sharded and trained.
        crew: the ranks.
        device: where to train.
    """

    def __init__(self, plain: nn.Module, crew: Crew, device: torch.device) -> None:
        super().__init__(plain, crew)
        self._sharded = shard(copied(plain)[0], device, crew.size)

    @property
    def model(self) -> nn.Module:
        """The sharded copy."""
        return self._sharded

    def weights(self) -> dict[str, Tensor]:
        """Gathers one tensor after the other into the first rank's memory."""
        self.settle()
        found: dict[str, Tensor] = {}
        named = [*self._sharded.named_parameters(), *self._sharded.named_buffers()]
        for name, tensor in named:
            entire = _entire(tensor)
            if self._crew.first:
                found[name] = entire.to("cpu", copy=True)
        return found

    def show(self) -> nn.Module:
        """Returns ``plain``, brought up to date on the first rank."""
        found = self.weights()
        if self._crew.first:
            put(self.plain, found)
        return self.plain

    def whole(self, state: Any) -> Any:
        """Gathers every tensor that is spread; the other ranks get stand-ins."""

        def gathered(tensor: Tensor) -> Tensor:
            entire = _entire(tensor)
            return entire.cpu() if self._crew.first else entire.new_empty(0)

        return map_tensors(state, gathered)

    def spread(self, state: Mapping[str, Any], optimizer: Optimizer) -> Any:
        """Cuts what has the shape of its parameter as the parameter is cut."""
        params = [p for group in optimizer.param_groups for p in group["params"]]
        kept = {
            number: {
                key: spread_like(value, params[number]) for key, value in entry.items()
            }
            for number, entry in state["state"].items()
        }
        return {**state, "state": kept}


def trainee(plain: nn.Module, course: Course, parallel: Parallel) -> Trainee:
    """Returns a model ready to be trained by the crew of a course.

    Raises:
        BadConfig: a single process is asked to shard.
    """
    crew = course.crew
    if crew.group is not None and parallel == "fsdp":
        return Sharded(plain, crew, course.device)
    if crew.group is not None:
        return Replicated(plain, crew, loose=course.loose)
    if parallel == "fsdp":
        raise BadConfig(
            "--parallel fsdp spreads a model over several processes, and there is one",
            hint="start it with torchrun --nproc-per-node N -m vgaudit retrain …",
        )
    return Trainee(plain)


def spread_like(value: Any, parameter: Tensor) -> Any:
    """Returns a whole tensor of a parameter's shape, spread as the parameter is.

    Other values, and those of parameters that are not spread, come back as they are.
    """
    if not isinstance(value, Tensor) or not is_sharded(parameter):
        return value
    if value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    known = cast(Any, parameter)
    device = cast(Tensor, known.to_local()).device
    return distribute_tensor(
        value.to(device), known.device_mesh, list(known.placements)
    )


def _entire(tensor: Tensor) -> Tensor:
    found = tensor.detach()
    if is_sharded(found):
        found = cast(Tensor, cast(Any, found).full_tensor())
    return found
