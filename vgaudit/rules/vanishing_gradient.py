"""VG101: the gradient is lost on its way to the input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vgaudit.findings import Finding, Fix, Level
from vgaudit.flow import (
    Audit,
    BranchFlow,
    GradientFlow,
    Interval,
    LayerFlow,
    Moments,
    TrunkStep,
)
from vgaudit.plain import visible
from vgaudit.rules import nets
from vgaudit.rules.budget import sentence, way
from vgaudit.rules.examples import HEALTHY, activation, around, chain, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.treatment import against_loss
from vgaudit.rules.wording import count, decades, number, place, span

LOST = (-9.6, -8.0, -6.1, -4.0, -2.0, 0.0)
BRANCH = BranchFlow(
    name="block.0 … block.6",
    entry="stem",
    exit="add",
    layers=("block.0", "block.2", "block.4", "block.6"),
    offset=around(-6.0),
    decay=around(-5.0),
)


def _small(audit: Audit) -> Audit:
    """Returns the audit with all of its loss put down to the weights."""
    steps = tuple(replace(step, cause="weights") for step in audit.flow.trunk)
    return having(audit, trunk=steps)


def _shared(audit: Audit) -> Audit:
    """Returns the audit with every layer called several times."""
    return having(audit, layers=tuple(replace(x, calls=5) for x in audit.flow.layers))


def _centred(audit: Audit) -> Audit:
    """Returns the audit with activations whose outputs are centred."""
    even = Moments(mean=0.0, std=0.5, min=-1.0, max=1.0)
    for layer in audit.flow.layers:
        if layer.activation is not None:
            audit = activation(audit, layer.path, output=even)
    return audit


Limits = tuple[tuple[Level, float], ...]


@dataclass(frozen=True, slots=True)
class VanishingGradient(Rule):
    """The gradient reaches the first layers too small to train them.

    What it measures:
        The transport of the trunk, a = log₁₀(‖δ‖ at the output of the deepest
        weight layer / ‖δ‖ at the output of the network), in decades, as the L2
        norm per sample over several batches. The trunk is the chain of tensors
        through which everything from input to output passes. A chain of weight
        layers beside the trunk, a tower with an input of its own or a head with an
        output of its own among them, is judged by its own decay, from its last layer
        to its first; what only sets it off from the trunk by a constant is no defect.
        Because both norms come from one backward pass, the figure does not depend
        on the scale of the loss, its reduction or the size of the batch.

    Why it matters:
        SGD's step scales with the gradient: a layer whose gradient is a thousand
        times smaller learns a thousand times slower, and stands still beside the
        last layers. Adam divides by the size of the gradient and bears more, until
        its ε takes over.

    False alarms:
        Wide nets lose up to about three decades by width alone (the same gradient
        is spread over more elements) and train; the limits lie below that. A short
        net whose weights are all too small can lose more at first and recover, since
        its last layers grow and take the others along: there the limit lies lower. So
        does a sigmoid or tanh layer that is applied many times: its weight learns by
        its last application, and all of them gain at once; such nets get a warning.
        How much is borne depends on the units, too: nets of rectified units stand
        still a little earlier than those of tanh, whose slope at zero is one.
        Under Adam the size of the gradient hardly matters by itself; what stays at
        chance are nets of sigmoid units, whose outputs are nearly constant (mean 0.5,
        hardly any spread) and drown the signal, and they get a limit of their own,
        unless all weights are small: steps of a fixed size make those anew. What
        saves deeper ones under Adam is a step of its own for each layer; a layer that
        is applied over and over has one for all, and its limit comes sooner. A net
        that is scanned in eval mode with statistics that were never updated is
        reported as VG004 instead.

    Treatments:
        Saturated sigmoid or tanh units: a rescaled initialisation or normalization
        before the activation. Slopes below one: an activation with unit slope, or
        a skip connection around each block. A smooth decay with a living forward
        signal: an optimizer that normalises each layer's step. Where the output
        hardly depends on the input, the forward signal is lost first: rescale the
        weights before anything else.

    References:
        Hochreiter 1991; Bengio, Simard and Frasconi 1994; Glorot and Bengio 2010,
        “Understanding the difficulty of training deep feedforward neural networks”;
        Schoenholz et al. 2017, “Deep information propagation”.
    """

    sgd_error: float = threshold(-3.6, "decades; below it an error under SGD")
    sgd_rectified_error: float = threshold(
        -3.61, "decades; the same where most units are rectified (no two rails)"
    )
    sgd_centred_error: float = threshold(
        -3.75, "decades; the same where most units are centred between rails (tanh)"
    )
    shared_error: float = threshold(
        -16.0, "decades; the same where one such layer is applied over and over"
    )
    adam_warning: float = threshold(-3.6, "decades; below it a warning under Adam")
    adam_error: float = threshold(
        -17.0, "decades; below it an error under Adam where activations are centred"
    )
    adam_offset_error: float = threshold(
        -8.1, "decades; below it an error under Adam where activations are off centre"
    )
    adam_shared_error: float = threshold(
        -5.5, "decades; the same where one such layer is applied over and over"
    )
    offset: float = threshold(
        2.0, "size of an output's mean over its deviation; above it off centre"
    )
    small_error: float = threshold(
        -5.7, "decades; below it an error under SGD where all weights are small"
    )
    small_step: float = threshold(
        -0.7, "mean decades across a weight; below it all weights are small"
    )
    small_share: float = threshold(
        0.6, "share of the loss that weights make; above it they may be small"
    )
    branch_layers: int = threshold(4, "weight layers from which a branch is judged")
    collapse: float = threshold(
        1e-3, "relative spread of the output over samples; below it forward collapse"
    )

    code: ClassVar[str] = "VG101"
    name: ClassVar[str] = "vanishing-gradient"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a deep sigmoid net under SGD", chain(LOST), "error"),
        Example("the same under Adam", chain(LOST), "error", Training("adam")),
        Example(
            "nine decades of a ReLU net under Adam",
            chain(LOST, kind="relu"),
            "warning",
            Training("adam"),
        ),
        Example(
            "five decades where all weights are small",
            _small(chain((-5.0, -2.5, 0.0))),
            "warning",
        ),
        Example(
            "four decades under SGD",
            chain((-4.0, -2.0, -1.0, 0.0), kind="relu"),
            "error",
        ),
        Example(
            "four decades under Adam",
            chain((-4.0, -2.0, -1.0, 0.0), kind="relu"),
            "warning",
            Training("adam"),
        ),
        Example(
            "a sigmoid layer that is applied over and over",
            _shared(chain(LOST)),
            "warning",
        ),
        Example(
            "six decades of such a layer under Adam",
            _shared(chain((-6.0, -4.5, -3.0, -1.5, 0.0))),
            "error",
            Training("adam"),
        ),
        Example(
            "six decades of separate sigmoid layers under Adam",
            chain((-6.0, -4.5, -3.0, -1.5, 0.0)),
            "warning",
            Training("adam"),
        ),
        Example(
            "small weights of a sigmoid net under Adam",
            _small(chain(LOST)),
            "warning",
            Training("adam"),
        ),
        Example(
            "an interval across the limit is unclear",
            chain((-3.7, -2.0, -1.0, 0.0), spread=0.3),
            "info",
        ),
        Example(
            "a branch that decays beside a healthy trunk",
            having(chain(HEALTHY), branches=(BRANCH,)),
            "error",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a net that trains", chain(HEALTHY)),
        Example("three decades lost by width alone", chain((-3.0, -2.0, -1.0, 0.0))),
        Example("tanh units bear more", _centred(chain((-3.7, -2.0, -1.0, 0.0)))),
        Example(
            "a branch with a constant offset",
            having(chain(HEALTHY), branches=(replace(BRANCH, decay=around(-0.4)),)),
        ),
        Example(
            "a gradient that is exactly zero is VG103",
            having(chain(HEALTHY), attenuation=around(-math.inf)),
        ),
        Example("no path was found", having(chain(HEALTHY), attenuation=None)),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields the trunk's loss, and each branch that decays."""
        beside = [
            finding
            for branch in audit.flow.branches
            if len(branch.layers) >= self.branch_layers
            for finding in self._branch(audit, branch, training)
        ]
        # Without a trunk the whole is what its branches are, which say more.
        if audit.flow.attenuation is not None and (audit.flow.trunk or not beside):
            yield from self._trunk(audit, audit.flow.attenuation, training)
        yield from beside

    def _trunk(
        self, audit: Audit, lost: Interval, training: Training
    ) -> Iterator[Finding]:
        flow = audit.flow
        verdict = self._verdict(
            lost, self._limits(flow, flow.trunk, training), training
        )
        if verdict is None:
            return
        starved = [x for x in flow.layers if _starved(x, verdict.limit)]
        deepest = next((x for x in flow.layers if x.weighted and x.trunk), None)
        first = starved[0] if starved else deepest
        total = sum(layer.weighted for layer in flow.layers)
        where = visible(first.path) if first else "the first layer"
        text = (
            f"between the output and {where} ({verdict.words}): "
            f"{len(starved)} of {count(total, 'weight layer')} starved"
        )
        yield self._finding(
            verdict,
            [x.path for x in starved] or ([first.path] if first else []),
            text,
            said=(tuple(self._evidence(flow, lost)), against_loss(audit, flow.trunk)),
            first=first,
        )

    def _branch(
        self, audit: Audit, branch: BranchFlow, training: Training
    ) -> Iterator[Finding]:
        limits = self._limits(audit.flow, branch.steps, training)
        verdict = self._verdict(branch.decay, limits, training)
        if verdict is None:
            return
        left = f"{way(branch)}, {span(branch.offset)} decades from there"
        yield self._finding(
            verdict,
            branch.layers,
            f"inside the branch {visible(branch.name)} ({verdict.words})",
            said=((left,), against_loss(audit, branch.steps)),
        )

    def _finding(
        self,
        verdict: _Verdict,
        layers: Sequence[str],
        text: str,
        *,
        said: tuple[tuple[str, ...], Fix],
        first: LayerFlow | None = None,
    ) -> Finding:
        evidence, fix = said
        return Finding(
            code=self.code,
            name=self.name,
            level=verdict.level,
            layer=place(layers),
            layers=tuple(layers),
            message=verdict.unclear
            or f"{decades(-verdict.lost.value)} decades are lost {text}",
            value=verdict.lost.value,
            limit=verdict.limit,
            unit="decades",
            unclear=bool(verdict.unclear),
            evidence=evidence,
            fix=fix,
            source=first.source if first else None,
        )

    def limits(self, flow: GradientFlow, training: Training) -> Limits:
        """Returns the limits on the trunk of a net of this kind, error first."""
        return self._limits(flow, flow.trunk, training)

    def _limits(
        self, flow: GradientFlow, steps: Sequence[TrunkStep], training: Training
    ) -> Limits:
        """Returns the limits, the strictest level first."""
        kind, small = nets.kind(flow, self.offset), self._small_weights(steps)
        if training.optimizer == "adam":
            drowned = kind == "offset" and not small
            usual = (
                self.adam_shared_error if nets.shared(flow) else self.adam_offset_error
            )
            error = usual if drowned else self.adam_error
            return ("error", error), ("warning", self.adam_warning)
        usual = {
            "rectified": self.sgd_rectified_error,
            "centred": self.sgd_centred_error,
        }.get(kind, self.sgd_error)
        if kind in ("centred", "offset") and nets.shared(flow):
            return ("error", self.shared_error), ("warning", usual)
        if small:
            return ("error", self.small_error), ("warning", usual)
        return (("error", usual),)

    def _small_weights(self, steps: Sequence[TrunkStep]) -> bool:
        """Tells whether weights make most of the loss, and each of them much."""
        gains = [x.gain.value for x in steps if x.cause == "weights"]
        lost = sum(x.gain.value for x in steps if x.gain.value < 0)
        most = sum(gains) < self.small_share * lost
        return most and sum(gains) < self.small_step * len(gains)

    def _verdict(
        self, lost: Interval, limits: Limits, training: Training
    ) -> _Verdict | None:
        """Returns None where all is well, and for zero and NaN: others judge those."""
        if not math.isfinite(lost.value):
            return None
        for level, limit in limits:
            words = f"limit {number(-limit)} under {training.optimizer}"
            if lost.hi < limit:
                return _Verdict(level, limit, lost, words)
        for _, limit in limits:
            if lost.lo < limit:
                unclear = (
                    f"unclear: {span(lost)} decades reach across the limit of "
                    f"{number(limit)} under {training.optimizer}; more batches would "
                    "narrow it"
                )
                return _Verdict("info", limit, lost, "", unclear)
        return None

    def _evidence(self, flow: GradientFlow, lost: Interval) -> Iterator[str]:
        if lost.lo != lost.hi:
            times = count(lost.n, "measurement")
            yield f"attenuation {span(lost)} decades over {times}"
        if budget := sentence(flow):
            yield f"where it went: {budget}"
        if (worst := flow.worst_step) is not None and worst.gain.value < 0:
            name = visible(worst.layer or worst.name)
            yield f"worst step: {name} ({decades(worst.gain.value)} decades)"
        variation = flow.output_variation
        if variation is not None and variation < self.collapse:
            yield (
                "the outputs hardly depend on the input (relative spread "
                f"{number(variation)}): the forward signal has collapsed too, so "
                "a larger step alone will not help"
            )


@dataclass(frozen=True, slots=True)
class _Verdict:
    level: Level
    limit: float
    lost: Interval
    words: str
    unclear: str = ""


def _starved(layer: LayerFlow, limit: float) -> bool:
    lost = layer.attenuation
    return layer.weighted and lost is not None and lost.hi < limit
