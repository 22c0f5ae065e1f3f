"""VG103: a gradient that is exactly zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Fix
from vgaudit.flow import Audit, Blocker, GradientFlow, LayerFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import chain, having, layer
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, percent, place

_HEAD = Blocker(name="layers.10.weight", layer="layers.10", learns=True, replaced=True)
_STUCK = Blocker(
    name="layers.10.weight", layer="layers.10", learns=False, replaced=False
)

DEAD = 0.95
"""Share of units or values without slope from which nothing passes a layer."""


@dataclass(frozen=True, slots=True)
class ZeroGradient(Rule):
    """A layer receives a gradient of exactly zero in every batch.

    What it measures:
        Weight layers whose gradient is exactly 0 at their output, for every
        sample of every batch, measured again in float64 where float32 could have
        rounded it to zero; and weights that are all zeros and stop the gradient.

    Why it matters:
        No optimizer moves a layer without gradient, whatever its step rule. A
        weight that is zero on purpose (a zero-initialised head or residual branch)
        is another matter: its own gradient is not zero, the first step revives it,
        and everything below it with it. That is information, not a defect.

    False alarms:
        An expert or branch that no sample of these batches was routed to; use
        more batches.

        Layers that some architectures never use in full (in MViTv2's last block only
        the class token goes on, so what serves the other tokens gets no gradient)
        lie beside the trunk: there it is a warning.

    Treatments:
        Dead rectifiers (VG302 beside it): a leaky activation or a smaller
        learning rate. A multiplication by zero in the forward pass: remove it.

    References:
        Lu et al. 2020, “Dying ReLU and initialization”; Goyal et al. 2017,
        “Accurate, large minibatch SGD” (zero-initialised residual branches).
    """

    code: ClassVar[str] = "VG103"
    name: ClassVar[str] = "zero-gradient"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a layer without any gradient",
            layer(chain(), "layers.0", zero_gradient=True, attenuation=None),
            "error",
        ),
        Example(
            "a layer beside the trunk without any gradient",
            layer(
                chain(), "layers.0", zero_gradient=True, attenuation=None, trunk=False
            ),
            "warning",
        ),
        Example("a zero head that learns", having(chain(), blockers=(_HEAD,)), "info"),
        Example(
            "a zero head that cannot", having(chain(), blockers=(_STUCK,)), "error"
        ),
        Example(
            "a zero head explains the zeros below it",
            having(
                layer(chain(), "layers.0", zero_gradient=True, attenuation=None),
                blockers=(_HEAD,),
            ),
            "info",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("a net that trains", chain()),
        Example(
            "an activation is judged by VG302",
            layer(chain(), "layers.1", zero_gradient=True),
        ),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields each blocking weight, then what no blocking weight explains."""
        for blocker in audit.flow.blockers:
            if blocker.learns:
                yield self._revived(blocker)
            else:
                yield self._stuck(blocker, _below(blocker, audit.flow))
        dead = [x for x in audit.flow.layers if x.weighted and x.zero_gradient]
        unexplained = [x for x in dead if not _explained(x, audit.flow)]
        if unexplained:
            yield self._dead(unexplained, audit.flow)

    def _revived(self, blocker: Blocker) -> Finding:
        return Finding(
            code=self.code,
            name=self.name,
            level="info",
            layer=blocker.layer,
            layers=(blocker.layer,),
            message=(
                f"{visible(blocker.name)} is all zeros, so every gradient below it is "
                "exactly 0 at first; it has a gradient of its own, and the first step "
                "revives it"
            ),
            evidence=("measured with a random weight in its place",)
            if blocker.replaced
            else (),
        )

    def _stuck(self, blocker: Blocker, below: int) -> Finding:
        return Finding(
            code=self.code,
            name=self.name,
            level="error",
            layer=blocker.layer,
            layers=(blocker.layer,),
            message=(
                f"{visible(blocker.name)} is all zeros and its own gradient is zero "
                "too: neither it nor anything below it ever learns"
            ),
            fix=self.advice(
                "initialise it with random values",
                f"it keeps {count(below + 1, 'weight layer')} still, itself included",
            ),
        )

    def _dead(self, dead: list[LayerFlow], flow: GradientFlow) -> Finding:
        paths = list(dict.fromkeys(x.path for x in dead))
        total = len({x.path for x in flow.layers if x.weighted})
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if any(x.trunk for x in dead) else "warning",
            layer=place(paths),
            layers=tuple(paths),
            message=(
                f"{len(paths)} of {count(total, 'weight layer')} get a gradient of "
                "exactly 0 in every batch: no optimizer moves them"
            ),
            value=float(len(paths)),
            limit=0.0,
            unit="layers",
            fix=self._way_out(dead, flow),
            source=dead[0].source,
        )

    def _way_out(self, dead: list[LayerFlow], flow: GradientFlow) -> Fix:
        """Returns what stands in the way: the first layer that nothing passes."""
        last = max(row.order for row in dead)
        for row in flow.layers:
            seen = row.activation
            if row.order <= last or seen is None:
                continue
            if seen.dead_fraction >= DEAD:
                return self.advice(
                    f"a leaky activation at {visible(row.path)}, or a less negative "
                    "bias in front",
                    f"{seen.dead_units:,} of its {seen.units:,} units never have a "
                    "slope",
                )
            if seen.bounded and seen.saturated >= DEAD:
                return self.advice(
                    f"smaller weights in front of {visible(row.path)}, or a norm",
                    f"{percent(seen.saturated)} of its values are on the rails",
                )
        above = [
            row
            for row in flow.layers
            if row.order > last and row.weighted and not row.zero_gradient
        ]
        where = f"between them and {visible(above[0].path)}" if above else "above them"
        return self.advice(
            f"look {where} for a multiplication by zero",
            f"{count(len(above), 'weight layer')} above them have a gradient, and no "
            "activation on the way is dead or saturated",
        )


def _below(blocker: Blocker, flow: GradientFlow) -> int:
    """Returns how many weight layers in front of a blocker get nothing."""
    orders = [row.order for row in flow.layers if row.path == blocker.layer]
    paths = {
        row.path
        for row in flow.layers
        if row.weighted and row.zero_gradient and row.order < max(orders, default=-1)
    }
    return len(paths)


def _explained(dead: LayerFlow, flow: GradientFlow) -> bool:
    """Tells whether a zero weight further up blocks the gradient of a layer."""
    blocking = {blocker.layer for blocker in flow.blockers}
    return any(x.path in blocking and x.order > dead.order for x in flow.layers)
