"""The processes that ``torchrun`` started, as one group that agrees on its errors."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from vgaudit.distributed import failure
from vgaudit.distributed.wire import exchanged
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.ranks import MEETING, Ranks

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

TIMEOUT = 1800.0
"""Seconds that a rank waits for another one before it gives up."""


class Group:
    """Some ranks that work on one task.

    All of its methods are collective: every rank calls them, in the same order.

    Args:
        ranks: the place of this process.
        store: where the ranks meet beside their collectives.
    """

    def __init__(self, ranks: Ranks, store: Store) -> None:
        self.ranks = ranks
        self._store = store
        self._settled: Exception | None = None
        self._broken = False

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.ranks.rank

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.ranks.size

    @property
    def broken(self) -> bool:
        """Whether the run must end: ranks may wait in collectives for this one."""
        return self._broken

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.ranks.first

    def gather(self, value: Any) -> list[Any] | None:
        """Returns every rank's value in order, on the first rank; elsewhere None.

        Args:
            value: plain values and tensors in dicts, lists and tuples.

        Raises:
            VgauditError: a rank has failed.
        """
        found = self.everywhere(value)
        return found if self.first else None

    def everywhere(self, value: Any) -> list[Any]:
        """Returns every rank's value in order, on all ranks.

        Args:
            value: plain values and tensors in dicts, lists and tuples.

        Raises:
            VgauditError: a rank has failed.
        """
        with self.failing():
            return exchanged(value)

    def reduce_sum(self, tensor: Tensor, *, channel: Any = None) -> Tensor:
        """Returns the sum of a tensor over all ranks, on all ranks.

        Args:
            tensor: stays as it is.
            channel: what it is exchanged on; None for that of everything.

        Raises:
            VgauditError: a rank has failed.
        """
        with self.failing():
            total = tensor.detach().clone()
            dist.all_reduce(total, group=channel)
            return total

    def agree(self, error: BaseException | None = None) -> None:
        """Lets all ranks go on, or all end with the error of the first that failed.

        To be called where no rank can be inside of another collective: after work
        that each rank does alone. Elsewhere ``failing`` ends the run. After an
        agreed error the ranks may go on together.

        Args:
            error: what this rank's own work came to.

        Raises:
            VgauditError: the same on all ranks; it names the rank, where not all
                came to the same.
        """
        records = self.everywhere(failure.record(error))
        failed = [(rank, text) for rank, text in enumerate(records) if text]
        if failed:
            self._settle(failure.agreed(failed, self.ranks, error), error)

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Agrees at the end of a block of work that this rank does alone.

        Raises:
            VgauditError: the block failed on this rank or another; the same on all.
        """
        error = None
        try:
            yield
        except Exception as failed:
            error = failed
        self.agree(error)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Ends the whole run where the block fails on this rank, or on another.

        For work with collectives inside: whoever waits in one for a rank that has
        failed is set free when that rank's process ends or leaves the group, and
        then raises the error of that rank.

        Raises:
            VgauditError: the error of whoever failed first, with its rank.
        """
        try:
            yield
        except Exception as error:
            if error is self._settled:
                raise
            self._broken = True
            self._settle(failure.cause(self._store, self.ranks, error), error)

    def _settle(self, found: Exception, error: BaseException | None) -> NoReturn:
        """Raises what all ranks know of, so that nobody tells it again.

        Args:
            found: what to raise.
            error: what came up on this rank; an error is not its own cause.
        """
        self._settled = found
        if found is error:
            raise found
        raise found from error


@contextlib.contextmanager
def joined(
    ranks: Ranks,
    device: str = "cpu",
    *,
    name: str = "",
    timeout: float = TIMEOUT,
    lost: failure.Lost | None = None,
) -> Iterator[Group]:
    """Joins the other ranks, on gloo and for CUDA devices on NCCL, and leaves again.

    At a normal end the ranks wait for each other. An error leaves at once, which
    sets the others free.

    Args:
        ranks: the place of this process, as torchrun said it.
        device: where the task runs; ``cuda`` means the device of the local rank.
        name: of the task; further groups of the same launch need further names.
            By default what the command line calls it.
        timeout: seconds to wait for the other ranks.
        lost: called from another thread with the error of a rank that has failed or
            died while this one is stuck; may end the process.

    Raises:
        BadConfig: this torch has no torch.distributed, or no such device.
        CannotRun: the ranks do not find each other, or one of them failed.
    """
    kind = torch.device(ranks.device(device))
    if not dist.is_available():
        raise BadConfig(
            "this torch was built without torch.distributed",
            hint="install a torch that has it, or run without torchrun",
        )
    backend = "gloo"
    if kind.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(kind)
    store = _met(ranks, name or os.environ.get(MEETING, "run"), timeout, backend)
    group = Group(ranks, store)
    pulse = failure.Pulse(store, ranks, lost)
    pulse.start()
    try:
        with group.failing():
            yield group
            dist.barrier()
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        pulse.end()
        dist.destroy_process_group()


def _let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error hold.

    A collective that fails leaves the process group in its frame, and gloo closes its
    connections when nobody holds the group: only then are the ranks set free that wait
    for this one.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _met(ranks: Ranks, name: str, timeout: float, backend: str) -> Store:
    from torch.distributed.rendezvous import rendezvous

    wait = timedelta(seconds=timeout)
    try:
        store, _, _ = next(
            iter(rendezvous("env://", ranks.rank, ranks.size, timeout=wait))
        )
        own: Store = dist.PrefixStore(f"vgaudit/{name}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, store=own, rank=ranks.rank, world_size=ranks.size, timeout=wait
        )
    except Exception as error:
        raise CannotRun(
            f"the {ranks.size} ranks do not find each other: {error}",
            hint="look at MASTER_ADDR and MASTER_PORT, and that every rank was started",
        ) from error
    return own
