"""What to try: treatments that the findings speak for, and the controls beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from vgaudit.data.seeding import generator_for
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
        "non-finite-gradient",
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

SWEPT: dict[str, tuple[float, float]] = {"adam": (1e-4, 1e-1), "sgd": (1e-3, 1.0)}
"""Ends of the learning-rate sweep of the plain model, spaced by equal ratios."""

USUAL = {"adam": 1e-3, "sgd": 1e-1}
DRAWN = {"adam": (1e-4, 1e-1), "sdagd": (3e-3, 3e-1), "rai": (1e-4, 1e-1)}
"""Between these random repair draws a learning rate, even in its logarithm."""

RATES = (1e-2, 1e-3)
"""Learning rates of Adam behind a treatment: the first for short trainings."""

SHALLOW = 10
"""Weight layers up to which rotated layers pay."""

SATURATED = 0.5

METHODS = ("adam", "sdagd", "rai")

Way = tuple[Start, str]


def cause(report: Report) -> Finding | None:
    """Returns the first finding that fails and that a treatment may cure."""
    found = (f for f in report.findings if report.fails(f) and f.name in TREATABLE)
    return next(found, None)


def candidates(report: Report) -> tuple[Arm, ...]:
    """Returns the treatments to try, those that the findings speak for first."""
    found = cause(report)
    if found is None or report.audit is None:
        return ()
    return treatments(report.audit.flow, f"{found.code} {found.name}")


def treatments(flow: GradientFlow, why: str) -> tuple[Arm, ...]:
    """Returns all treatments for a gradient flow, the likeliest first."""
    return tuple(
        Arm(
            name=named(start, method, lr),
            family="treatment",
            start=start,
            method=method,
            lr=lr,
            why=why,
        )
        for start, method, lr in _order(flow)
    )


def _order(flow: GradientFlow) -> Iterator[tuple[Start, str, float | None]]:
    """Yields start, method and learning rate of each candidate, the likeliest first.

    Where units are saturated, their inputs must leave the rails: rotated layers, if
    there are few. Else the size of the weights comes first; then a step of its own
    for each layer, which needs no new start; then other activations.
    """
    high, low = RATES
    first: list[Way] = [("rescale", "adam"), ("reinit", "adam")]
    own: list[Way] = [("rescale", "sdagd"), ("as-it-is", "sdagd")]
    shapes: list[Way] = [("ar", "adam"), ("adact", "adam")]
    if _railed(flow) >= SATURATED and flow.weight_layers <= SHALLOW:
        first.append(shapes.pop(0))
    for start, method in (*first, *own, *shapes):
        yield start, method, high if method == "adam" else None
    for start, method in (*first, *shapes):
        yield start, method, low
    yield "reinit", "sdagd", None
    yield "as-it-is", "rai", None


def _railed(flow: GradientFlow) -> float:
    """Returns the share of saturated values over all bounded activations."""
    seen = [x.activation for x in flow.layers if x.activation is not None]
    bounded = [x for x in seen if x.bounded]
    elements = sum(x.elements for x in bounded)
    return (
        sum(x.saturated * x.elements for x in bounded) / elements if elements else 0.0
    )


def sweep(count: int) -> tuple[Arm, ...]:
    """Returns plain trainings at ``count`` learning rates, of Adam and of SGD."""
    shares = {"adam": count - count // 2, "sgd": count // 2}
    return tuple(
        plain(method, rate, "learning-rate sweep")
        for method, share in shares.items()
        for rate in rates(method, share)
    )


def plain(method: str, lr: float, why: str) -> Arm:
    """Returns a training of the model as it is."""
    return Arm(
        name=f"plain {method}, lr {lr:.2g}",
        family="sweep",
        start="as-it-is",
        method=method,
        lr=lr,
        why=why,
    )


def rates(method: str, count: int) -> tuple[float, ...]:
    """Returns the learning rates of a sweep; one alone is the usual one."""
    if count == 1:
        return (USUAL[method],)
    low, high = (math.log10(x) for x in SWEPT[method])
    return tuple(10 ** (low + (high - low) * i / (count - 1)) for i in range(count))


def random_repairs(
    count: int, allowed: Sequence[Start], *, seed: int
) -> tuple[Arm, ...]:
    """Returns treatments drawn without a look at the model.

    Args:
        count: how many.
        allowed: starts that the model can have at all.
        seed: of the draws.
    """
    ways = tuple(_every(allowed))
    found = []
    for number in range(1, count + 1):
        generator = generator_for(seed, "random repair", number)
        at = int(torch.randint(len(ways), (1,), generator=generator))
        part = float(torch.rand((), generator=generator))
        start, method = ways[at]
        lr = _between(DRAWN[method], part)
        found.append(
            Arm(
                name=f"random {number}: {named(start, method, lr)}",
                family="random",
                start=start,
                method=method,
                lr=lr,
                why="drawn by the seed",
            )
        )
    return tuple(found)


def _every(allowed: Sequence[Start]) -> Iterator[Way]:
    for start in allowed:
        for method in METHODS:
            if start != "adact" or method == "adam":
                yield start, method


def _between(ends: tuple[float, float], part: float) -> float:
    low, high = (math.log10(x) for x in ends)
    return float(f"{10 ** (low + (high - low) * part):.2g}")


def named(start: Start, method: str, lr: float | None) -> str:
    """Returns what an arm does, in words: ``rescale + adam, lr 0.01``."""
    way = method if start == "as-it-is" else f"{start} + {method}"
    return way if lr is None else f"{way}, lr {lr:.2g}"
