"""VG603: gradients so small that Adam's ε decides the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import deep, steps, trained
from vgaudit.rules.first_steps import FirstStep, first_steps, share
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import names, number, percent, place

_FLOOR = trained(deep(precision=steps(floor=0.8)))


@dataclass(frozen=True, slots=True)
class AdamFloor(Rule):
    """Adam's ε takes half of the step or more, for most of the weights.

    What it measures:
        The share of the elements of all weights with 0 < |g| ≤ ε = 1e-8, where
        Adam's step η·g/(|g| + ε) is at most half of what it should be. It needs
        `scan --deep`, a loss, and `--optimizer adam`.

    Why it matters:
        Adam is immune to small gradients because it divides by their size. At its ε
        that ends: below, the step shrinks with the gradient as SGD's does.

    False alarms:
        Embeddings of tokens that hardly occur; a loss with a small weight.

    Treatments:
        A smaller ε (1e-12 in float32), a larger loss (a sum in place of a mean, a
        scale), or what VG101 says where the gradient is lost on its way.

    References:
        Kingma and Ba 2015, “Adam: a method for stochastic optimization”; Wortsman
        et al. 2023, “Small-scale proxies for large-scale transformer training
        instabilities”.
    """

    warning: float = threshold(0.5, "share of elements on the floor; at or above it")

    code: ClassVar[str] = "VG603"
    name: ClassVar[str] = "adam-floor"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("four fifths under Adam", _FLOOR, "warning", Training("adam")),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("SGD has no ε", _FLOOR),
        Example(
            "gradients well above",
            trained(deep(precision=steps())),
            training=Training("adam"),
        ),
        Example("an ordinary scan", chain(), training=Training("adam")),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model."""
        if training.optimizer != "adam":
            return
        known = list(first_steps(audit, "adam"))
        low = share(known, "floor")
        if low < self.warning:
            return
        worst = [step for step in known if step.update.floor >= self.warning]
        layers = tuple(dict.fromkeys(step.layer for step in worst))
        yield Finding(
            code=self.code,
            name=self.name,
            level="warning",
            layer=place(layers),
            layers=layers,
            message=(
                f"{percent(low)} of the gradient lies at or below Adam's ε (limit "
                f"{percent(self.warning)}): {names([s.name for s in worst])}"
            ),
            value=low,
            limit=self.warning,
            unit="share",
            fix=self.advice("a smaller ε, or a larger loss", _size(audit, worst)),
        )


def _size(audit: Audit, worst: list[FirstStep]) -> str:
    """Returns how small the gradients on the floor are, as the reason."""
    names_of = {step.name for step in worst}
    sizes = [p.grad_rms for p in audit.flow.parameters if p.name in names_of]
    known = [size for size in sizes if size]
    if not known:
        return "what lies below ε is divided by ε and not by its own size"
    return (
        f"these gradients have a root mean square of {number(min(known))} to "
        f"{number(max(known))}, and ε is 1e-8"
    )
