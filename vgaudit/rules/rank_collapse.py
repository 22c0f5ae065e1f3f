"""VG607: a stream in which all tokens are alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, StreamPoint
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import stream
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import number


@dataclass(frozen=True, slots=True)
class RankCollapse(Rule):
    """The tokens of a sequence become one: the residual stream has rank one.

    What it measures:
        At every module of the trunk whose output is a sequence, ‖X − mean over
        tokens‖ / ‖X‖, and the participation ratio of the tokens. It needs
        `scan --deep`.

    Why it matters:
        Attention averages, and repeated averaging makes all tokens equal; skips and
        feed-forward layers work against it. Where the tokens have become one, the
        gradient of queries and keys is 0 and attention cannot be learned.

    False alarms:
        Sequences that repeat one token; a pooled sequence of length one is left out.

    Treatments:
        Skips of full strength around attention, a norm before and not after it
        (pre-norm), a scale of 1/√depth on the branches.

    References:
        Dong, Cordonnier and Loukas 2021, “Attention is not all you need: pure
        attention loses rank doubly exponentially with depth”; Noci et al. 2022,
        “Signal propagation in transformers: theoretical perspectives and the role of
        rank collapse”.
    """

    warning: float = threshold(0.02, "relative spread over tokens; below it")
    error: float = threshold(1e-3, "relative spread over tokens; below it")
    apart: float = threshold(0.2, "spread from which tokens count as different")

    code: ClassVar[str] = "VG607"
    name: ClassVar[str] = "rank-collapse"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "attention without skips",
            stream(0.9, 0.9, 0.9, tokens=(0.9, 0.05, 1e-4)),
            "error",
        ),
        Example(
            "a hundredth is left",
            stream(0.9, 0.9, 0.9, tokens=(0.9, 0.3, 0.01)),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("tokens that differ", stream(0.9, 0.9, tokens=(0.99, 0.8))),
        Example("tokens alike from the start", stream(0.9, 0.9, tokens=(0.01, 0.01))),
        Example("no tokens", stream(0.9, 0.8)),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model: where the tokens become one."""
        deep = audit.flow.deep
        known = [p for p in deep.stream if p.tokens is not None] if deep else []
        if not known or max(map(_tokens, known)) < self.apart:
            return
        worst = _tokens(known[-1])
        if worst >= self.warning:
            return
        severe = worst < self.error
        limit = self.error if severe else self.warning
        first = next(point for point in known if _tokens(point) < limit)
        yield Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            layer=first.layer,
            layers=tuple(p.layer for p in known if _tokens(p) < limit),
            message=(
                f"from {visible(first.layer)} on all tokens are alike: they differ by "
                f"{number(_tokens(first))} of their size, by {number(worst)} at the "
                f"end (limit {number(limit)})"
            ),
            value=worst,
            limit=limit,
            unit="relative spread",
            evidence=(f"directions that carry the signal: {number(known[-1].rank)}",),
            fix=self.advice(
                "skips of full strength around attention, and the norm before it",
                f"of {number(known[0].rank)} directions in front "
                f"{number(known[-1].rank)} are left",
            ),
        )


def _tokens(point: StreamPoint) -> float:
    return 1.0 if point.tokens is None else point.tokens
