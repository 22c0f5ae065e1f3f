"""Several processes for one test, and what each of them came to."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from vgaudit.errors import VgauditError
from vgaudit.ranks import Ranks

LIMIT = 240.0
"""Seconds after which a test says that the ranks hang."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Crew:
    """Processes that wait for work: to start one takes seconds."""

    def __init__(self, size: int) -> None:
        context = mp.get_context("spawn")
        pairs = [context.Pipe() for _ in range(size)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=_serve, args=(theirs,), daemon=True)
            for _, theirs in pairs
        ]
        for process, (_, theirs) in zip(self.processes, pairs, strict=True):
            process.start()
            theirs.close()

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


_CREWS: dict[int, _Crew] = {}


def together(work: Callable[..., Any], size: int, *given: Any) -> list[Any]:
    """Returns what ``work(ranks, *given)`` returned on each of ``size`` processes.

    An error of vgaudit is returned as its kind and message; a process that ended
    otherwise gives None.
    """
    crew = _CREWS.pop(size, None) or _Crew(size)
    port = free_port()
    for rank, pipe in enumerate(crew.pipes):
        pipe.send((work, Ranks(rank, size, rank), port, given))
    answers = []
    try:
        answers.extend(_heard(pipe) for pipe in crew.pipes)
    finally:
        if len(answers) == size and None not in answers and crew.alive:
            _CREWS[size] = crew
        else:
            crew.end()
    return answers


def _heard(pipe: Any) -> Any:
    if not pipe.poll(LIMIT):
        raise AssertionError(f"no answer within {LIMIT:g} s: the ranks hang")
    try:
        return pipe.recv()[0]
    except (EOFError, ConnectionError):
        return None


def _serve(pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            work, ranks, port, given = pipe.recv()
        except EOFError:
            return
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        try:
            answer = work(ranks, *given)
        except VgauditError as error:
            answer = (type(error).__name__, error.message)
        pipe.send((answer,))
