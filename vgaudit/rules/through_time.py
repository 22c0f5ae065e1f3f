"""The recurrent layers of a flow by module, and what each carries to its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit.flow import Audit, GradientFlow, Interval, RecurrenceFlow
from vgaudit.rules.examples import around, chain, having

REVERSE = " reverse"


@dataclass(frozen=True, slots=True)
class Reading:
    """One recurrent module: the layer and direction that carries most.

    Attributes:
        module: its path.
        best: the layer and direction with most gradient at the longest lag.
        lag: steps that the gradient must go back.
        carried: decades at that lag.
        last_only: the output reads the last state alone.
    """

    module: str
    best: RecurrenceFlow
    lag: int
    carried: Interval
    last_only: bool


def readings(flow: GradientFlow) -> Iterator[Reading]:
    """Yields the recurrent modules of a flow."""
    groups: dict[str, list[RecurrenceFlow]] = {}
    for item in flow.recurrences:
        groups.setdefault(item.layer.partition(" ")[0], []).append(item)
    for module, items in groups.items():
        onward = [x for x in items if not x.layer.endswith(REVERSE)]
        back = [x for x in items if x.layer.endswith(REVERSE)]
        # With the last states of both directions, no step is further than halfway.
        both = bool(back) and all(x.last_only for x in back)
        used = [*onward, *back] if both else onward
        lags = {id(x): x.lags[-1] // 2 if both else x.lags[-1] for x in used}
        best = max(used, key=lambda x: at(x, lags[id(x)]).value)
        lag = lags[id(best)]
        yield Reading(
            module=module,
            best=best,
            lag=lag,
            carried=at(best, lag),
            last_only=all(x.last_only is True for x in onward),
        )


def at(flow: RecurrenceFlow, lag: int) -> Interval:
    """Returns the decades at a lag, or at the next larger one that is known."""
    known = zip(flow.lags, flow.decades, strict=True)
    return next(value for place, value in known if place >= lag)


def reader(
    rate: float,
    steps: int = 40,
    *,
    last_only: bool | None = True,
    kind: str = "lstm",
    spread: float = 0.0,
) -> Audit:
    """Returns an example: a net whose recurrent layer changes δ by ``rate`` a step."""
    lags = tuple(range(steps))
    below = [lag for lag in lags if rate * lag < -2]
    layer = RecurrenceFlow(
        layer="cell",
        kind=kind,
        steps=steps,
        lags=lags,
        decades=tuple(around(rate * lag, spread=spread) for lag in lags),
        rate=around(rate),
        horizon=below[0] if below else None,
        last_only=last_only,
    )
    return having(chain((0.0, 0.0)), recurrences=(layer,))
