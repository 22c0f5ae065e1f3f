"""What to try: treatments that the findings speak for, and the controls beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from vgaudit.findings import Finding, Report
from vgaudit.fixing import Arm, Start
from vgaudit.flow import GradientFlow

TREATABLE = frozenset(
    {
        "dead-units",
        "exploding-activation",
        "exploding-gradient",
        "exploding-through-time",
        "forward-collapse",
        "gain-mismatch",
        "rank-collapse",
        "saturated-activation",
        "saturating-stack",
        "stalled-update",
        "vanishing-gradient",
        "vanishing-through-time",
        "zero-gradient",
    }
)
"""Findings against which a start or a method of training can do something."""

RATES = (1e-4, 1e-1)
"""Ends of the learning-rate sweep of Adam, spaced by equal ratios."""

RANDOM = "random repair"
SHALLOW = 10
"""Weight layers up to which rotated layers pay."""

SATURATED = 0.5

METHODS = ("adam", "sdagd", "rai")


def cause(report: Report) -> Finding | None:
    """Returns the first finding that fails and that a treatment may cure."""
    found = (f for f in report.findings if report.fails(f) and f.name in TREATABLE)
    return next(found, None)


def candidates(report: Report) -> tuple[Arm, ...]:
    """Returns the treatments to try, those that the findings speak for first."""
    found = cause(report)
    if found is None or report.audit is None:
        return ()
    why = f"{found.code} {found.name}"
    order = _order(report.audit.flow, report)
    return tuple(
        Arm(
            name=_named(start, method),
            role="candidate",
            start=start,
            method=method,
            why=why,
        )
        for start, method in order
    )


def _order(flow: GradientFlow, report: Report) -> list[tuple[Start, str]]:
    """Returns start and method of each candidate, the likeliest first.

    Where units are saturated, their inputs must leave the rails: rotated layers, if
    there are few. Else the size of the weights comes first; then a step of its own
    for each layer, which needs no new start; then other activations.
    """
    weights: list[tuple[Start, str]] = [("rescale", "adam"), ("reinit", "adam")]
    shapes: list[tuple[Start, str]] = [("adact", "adam")]
    if _railed(flow) >= SATURATED and flow.weight_layers <= SHALLOW:
        shapes.insert(0, ("ar", "adam"))
        weights, shapes = [weights[0], shapes[0], weights[1]], shapes[1:]
    else:
        shapes.append(("ar", "adam"))
    own: list[tuple[Start, str]] = [("rescale", "sdagd"), ("as-it-is", "sdagd")]
    return [*weights, *own, *shapes, ("as-it-is", "rai")]


def _railed(flow: GradientFlow) -> float:
    """Returns the share of saturated values over all bounded activations."""
    seen = [x.activation for x in flow.layers if x.activation is not None]
    bounded = [x for x in seen if x.bounded]
    elements = sum(x.elements for x in bounded)
    return (
        sum(x.saturated * x.elements for x in bounded) / elements if elements else 0.0
    )


def controls(count: int) -> tuple[Arm, ...]:
    """Returns the sweep of ``count`` learning rates, and random repair.

    As many rates as there are candidates, so that the sweep takes as many steps as
    they do; random repair does too, by as many draws.
    """
    sweep = tuple(
        Arm(
            name=f"plain adam, lr {rate:.2g}",
            role="control",
            start="as-it-is",
            method="adam",
            lr=rate,
            why="learning-rate sweep",
        )
        for rate in rates(count)
    )
    return (*sweep, random_repair())


def rates(count: int) -> tuple[float, ...]:
    """Returns the learning rates of a sweep; one alone is Adam's usual 1e-3."""
    if count == 1:
        return (1e-3,)
    low, high = (math.log10(x) for x in RATES)
    return tuple(10 ** (low + (high - low) * i / (count - 1)) for i in range(count))


def random_repair() -> Arm:
    """Returns the control that draws a treatment without looking at the model."""
    return Arm(
        name=RANDOM,
        role="control",
        start="as-it-is",
        method="adam",
        why="a treatment drawn by the seed",
        drawn=True,
    )


def drawn(generator: torch.Generator, allowed: Sequence[Start]) -> Arm:
    """Returns one treatment of all that there are, each as likely as the others.

    Args:
        generator: of the seed.
        allowed: starts that the model can have at all.
    """
    every = list(_every(allowed))
    at = int(torch.randint(len(every), (1,), generator=generator))
    return every[at]


def _every(allowed: Sequence[Start]) -> Iterator[Arm]:
    for start in allowed:
        for method in METHODS:
            if start == "adact" and method != "adam":
                continue
            yield Arm(
                name=_named(start, method), role="control", start=start, method=method
            )


def _named(start: Start, method: str) -> str:
    return method if start == "as-it-is" else f"{start} + {method}"
