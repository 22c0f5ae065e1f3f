"""VG303: attention heads that look at one key only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import AttentionFlow, Audit
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import heads
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, number, percent


@dataclass(frozen=True, slots=True)
class AttentionEntropyCollapse(Rule):
    """The heads of an attention layer look at a single key, whatever the input.

    What it measures:
        For each head the entropy of its attention over log n, n the number of keys
        that a query sees, meaned over queries and samples; and the largest logit
        |q·k|·scale. It needs `scan --deep`.

    Why it matters:
        The softmax of large logits is saturated: its derivative diag(p) − ppᵀ is
        near 0, so queries and keys get no gradient, and the loss becomes unstable
        while the logits go on growing. It is how the training of large transformers
        diverges.

    False alarms:
        Single sharp heads are normal in trained models (a head that looks at the
        previous token); the rule wants most heads of a layer.

    Treatments:
        Normalization of queries and keys (QK norm), a smaller learning rate or
        longer warm-up, weight decay on their projections, or spectral
        reparametrisation of them.

    References:
        Zhai et al. 2023, “Stabilizing transformer training by preventing attention
        entropy collapse”; Dehghani et al. 2023, “Scaling vision transformers to 22
        billion parameters”.
    """

    entropy: float = threshold(0.1, "entropy / log n; below it a head has collapsed")
    share: float = threshold(0.5, "share of collapsed heads; at or above it a warning")
    logit: float = threshold(
        50.0, "largest logit; at or above it, with all heads collapsed, an error"
    )
    keys: int = threshold(4, "keys from which entropy means something")

    code: ClassVar[str] = "VG303"
    name: ClassVar[str] = "attention-entropy-collapse"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("four heads with large logits", heads(0.001, logit=200.0), "error"),
        Example("four sharp heads", heads(0.06), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("even attention", heads(0.97)),
        Example("attention with a choice", heads(0.4)),
        Example("two keys", heads(0.01, keys=2)),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each layer whose heads have collapsed."""
        deep = audit.flow.deep
        for call in deep.attention if deep is not None else ():
            sharp = sum(value < self.entropy for value in call.entropy)
            share = sharp / max(len(call.entropy), 1)
            if call.keys >= self.keys and share >= self.share:
                yield self._finding(call, share)

    def _finding(self, call: AttentionFlow, share: float) -> Finding:
        logits = [value for value in call.largest_logit if not math.isnan(value)]
        top = max(logits, default=math.nan)
        severe = share == 1.0 and top >= self.logit
        lowest = min(call.entropy)
        said = "" if math.isnan(top) else f"; the largest logit is {number(top)}"
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if severe else "warning",
            layer=call.layer,
            layers=(call.layer,),
            message=(
                f"{percent(share)} of the {len(call.entropy)} heads of "
                f"{visible(call.layer)} attend to one key: entropy / log n down to "
                f"{number(lowest)} (limit {number(self.entropy)}){said}"
            ),
            value=lowest,
            limit=self.entropy,
            unit="entropy / log n",
            fix=self._way_out(call, top),
            source=call.source,
        )

    def _way_out(self, call: AttentionFlow, top: float) -> Fix:
        """Returns what to do: by the logits where they are known and large."""
        if top >= self.logit:
            return self.advice(
                "normalise queries and keys (or lower their learning rate)",
                f"logits reach {number(top)}, and a lead of "
                f"{number(math.log(call.keys) + 3)} already gives one of "
                f"{count(call.keys, 'key')} 95 % of the attention",
            )
        return self.advice(
            "warm up more slowly, or look at what that key holds",
            f"a head keeps {number(min(call.entropy))} of log n, and no logit "
            f"is above {number(top)}"
            if math.isfinite(top)
            else f"a head keeps {number(min(call.entropy))} of log n",
        )
