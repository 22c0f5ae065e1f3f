"""VG105: a weight whose update is far smaller than those of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, ParameterFlow
from vgaudit.rules.examples import chain, parameter
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, decades, names, number, place

_SMALL = parameter(chain(), "layers.4.weight", grad_to_weight=1e-6)


@dataclass(frozen=True, slots=True)
class StalledUpdate(Rule):
    """Under SGD one weight moves by a far smaller part of itself than the others.

    What it measures:
        The relative size of a step, ‖gradient‖ / ‖weight‖, of each weight with two
        dimensions or more, against the median of the model, in decades.

    Why it matters:
        All layers share one learning rate. A weight whose relative update is ten
        thousand times smaller than the median stands still while the others
        train. Adam and its kin divide by the gradient's size, so it does not apply
        to them.

    False alarms:
        Embeddings of rare tokens; heads of a multi-task model whose loss weighs
        little.

    Treatments:
        An optimizer with a step per layer, a parameter group with its own learning
        rate, or a smaller scale of the weight (behind normalization a large weight
        slows itself down).

    References:
        You, Gitman and Ginsburg 2017, “Large batch training of convolutional
        networks” (LARS); van Laarhoven 2017, “L2 regularization versus batch and
        weight normalization”.
    """

    decades: float = threshold(4.0, "decades below the median of the model's weights")
    weights: int = threshold(4, "weights from which a median means something")

    code: ClassVar[str] = "VG105"
    name: ClassVar[str] = "stalled-update"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101",)
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("one weight five decades behind", _SMALL, "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("all weights alike", chain()),
        Example("the same under Adam", _SMALL, training=Training("adam")),
        Example(
            "no gradient at all is VG103",
            parameter(chain(), "layers.4.weight", grad_norm=0.0, grad_to_weight=0.0),
        ),
        Example(
            "two weights have no median",
            parameter(chain((-1.0, 0.0)), "layers.0.weight", grad_to_weight=1e-9),
        ),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for all weights that lag behind."""
        if training.optimizer != "sgd":
            return
        ratios = {
            p.name: math.log10(r) for p in audit.flow.parameters if (r := _ratio(p))
        }
        if len(ratios) < self.weights:
            return
        middle = median(ratios.values())
        slow = [
            name for name, ratio in ratios.items() if ratio <= middle - self.decades
        ]
        if not slow:
            return
        layers = tuple(name.rpartition(".")[0] or name for name in slow)
        lag = middle - min(ratios[name] for name in slow)
        yield Finding(
            code=self.code,
            name=self.name,
            level="warning",
            layer=place(layers),
            layers=layers,
            message=(
                f"the relative SGD step of {count(len(slow), 'weight')} is up to "
                f"{decades(lag)} decades below the model's median "
                f"(limit {number(self.decades)}): {names(slow)}"
            ),
            value=lag,
            limit=self.decades,
            unit="decades",
            fix=self.advice(
                "a learning rate of their own, or an optimizer that normalises each "
                "layer's step (SDAGD)",
                f"a rate {number(10**lag)} times larger brings the slowest to the "
                "median",
            ),
        )


def _ratio(parameter_flow: ParameterFlow) -> float | None:
    """Returns the relative step of a trained weight, None where there is none."""
    ratio = parameter_flow.grad_to_weight
    if len(parameter_flow.shape) < 2 or not parameter_flow.trainable or not ratio:
        return None
    return ratio if math.isfinite(ratio) else None
