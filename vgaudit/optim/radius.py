"""How far each block may go: its radius R, its damping μ, the adaptation of R.

``μ = rms(‖g‖) / R`` with the root of an EMA of ‖g‖² in the place of ‖g‖, as Goh's
approximate greatest descent has it with the plain norm. With curvature ``h ≥ 0`` the
step ``m / (μ + κh)`` is never longer than R: the EMA m of the gradients is no longer
than the EMA of their lengths, and that no longer than their root mean square
(Jensen), as long as both averages forget at the same speed. Where they do not, μ is
raised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vgaudit.optim.averages import correction, curvature, momentum
from vgaudit.optim.gradients import Gradients
from vgaudit.optim.layers import Layout, Scope
from vgaudit.optim.norms import inner_products, norms
from vgaudit.optim.trust import SMALLEST, trust_damping

Radius = Literal["relative", "absolute"]
Solve = Literal["agd", "trust"]

# The norm of a tensor counts as at least this times √(its rows), so that a bias or
# a branch that starts at zero can leave it.
_FLOOR = 0.05

_ADAPT_EVERY = 5
_ADAPT_RATE = 0.15
_ADAPT_RANGE = (0.1, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The settings that hold for the whole optimizer.

    Attributes:
        scope: what shares one μ: each tensor, weight and bias of a layer, or all.
        radius: ``lr`` times the norm of the weights, or ``lr`` itself.
        solve: ``agd`` (μ by formula) or ``trust`` (the smallest that fits).
        norm_decay: of the averages of ‖g‖² and of ā.
        adapt: let each layer's radius follow the cosine of g and m.
        curvature_decay: of the average of the curvature.
        every: steps between two observations of curvature.
        seed: of the random cotangents.
    """

    scope: Scope
    radius: Radius
    solve: Solve
    norm_decay: float
    adapt: bool
    curvature_decay: float
    every: int
    seed: int


def set_damping(layout: Layout, gradients: Gradients, rule: Rule) -> None:
    """Writes ``radius`` and ``mu`` of every moving block to the state of its lead.

    μ is infinite where the radius is 0, and where the gradient is so small that
    1/μ leaves the range of float32: such a block stands still.
    """
    blocks = list(_blocks(gradients))
    for block in blocks:
        lead = layout.kept(block.lead)
        factor = layout.kept(block.layer).get("radius_factor", 1.0)
        lead["radius"] = factor * _radius(layout, block, gradients, rule)
        square = sum(gradients.norms[index] ** 2 for index in block.inside)
        rms = _root_mean_square(lead, square, rule.norm_decay)
        lead["mu"] = _damping(rms, lead["radius"])
    if rule.solve == "trust":
        _fit_exactly(layout, blocks)
        return
    speeds = {layout.option(index, "momentum") for index in gradients.members}
    if speeds != {rule.norm_decay}:
        _hold_bound(layout, blocks)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of a moving layer: where its state lives, and which members move."""

    layer: int
    lead: int
    inside: tuple[int, ...]


def _blocks(gradients: Gradients) -> Iterator[_Block]:
    for layer, members in gradients.moving:
        for block in layer.blocks:
            inside = tuple(index for index in block if index in members)
            if inside:
                yield _Block(layer.members[0], block[0], inside)


def _radius(layout: Layout, block: _Block, gradients: Gradients, rule: Rule) -> float:
    if rule.radius == "absolute":
        return float(layout.option(block.lead, "lr"))
    parts = []
    for index in block.inside:
        rows = layout.param(index).shape[:1].numel()
        norm = max(gradients.weight_norms[index], _FLOOR * math.sqrt(rows))
        parts.append(float(layout.option(index, "lr")) * norm)
    return math.hypot(*parts)


def _root_mean_square(lead: dict[str, float], square: float, decay: float) -> float:
    """Averages ‖g‖² into the state of the lead; returns the corrected root."""
    lead["norm_square"] = decay * lead.get("norm_square", 0.0) + (1.0 - decay) * square
    lead["norm_weight"] = decay * lead.get("norm_weight", 0.0) + (1.0 - decay)
    return math.sqrt(lead["norm_square"] / lead["norm_weight"])


def _damping(length: float, radius: float) -> float:
    if radius == 0.0 or length / radius < SMALLEST:
        return math.inf
    return length / radius


def _hold_bound(layout: Layout, blocks: list[_Block]) -> None:
    """Raises μ where momentum is longer than the average norm."""
    for block, length in zip(blocks, _momentum_lengths(layout, blocks), strict=True):
        lead = layout.kept(block.lead)
        lead["mu"] = max(lead["mu"], _damping(length, lead["radius"]))


def _fit_exactly(layout: Layout, blocks: list[_Block]) -> None:
    """Replaces μ by the smallest that keeps the step in its radius."""
    for block, length in zip(blocks, _momentum_lengths(layout, blocks), strict=True):
        lead = layout.kept(block.lead)
        lead["mu"] = _damping(length, lead["radius"])
        seen = [curvature(layout, index) for index in block.inside]
        if math.isinf(lead["mu"]) or all(found is None for found in seen):
            continue
        momenta = [momentum(layout, i) / correction(layout, i) for i in block.inside]
        scaled = [
            m.new_zeros(()).expand_as(m) if found is None else found[0] * found[1]
            for m, found in zip(momenta, seen, strict=True)
        ]
        lead["mu"] = trust_damping(momenta, scaled, lead["radius"])


def _momentum_lengths(layout: Layout, blocks: list[_Block]) -> list[float]:
    """Returns the norm of each block's bias-corrected momentum."""
    indices = [index for block in blocks for index in block.inside]
    found = norms([momentum(layout, i) for i in indices], layout.spread(indices))
    length = dict(zip(indices, found, strict=True))
    return [
        math.hypot(*(length[i] / correction(layout, i) for i in block.inside))
        for block in blocks
    ]


def adapt_radius(layout: Layout, gradients: Gradients) -> None:
    """Multiplies a layer's radius by exp(0.15·cos(g, m)) every fifth step.

    ``m`` is the momentum before this step's gradient. A gradient that agrees with
    it lengthens the next steps, one that turns back shortens them; the product of
    all factors stays within [0.1, 2].
    """
    due = []
    for layer, members in gradients.moving:
        lead = layout.kept(layer.members[0])
        lead["layer_steps"] = lead.get("layer_steps", 0) + 1
        known = tuple(i for i in members if "momentum" in layout.kept(i))
        if lead["layer_steps"] % _ADAPT_EVERY == 0 and known:
            due.append((layer.members[0], known))
    cosines = _cosines(layout, gradients, due)
    for (first, _), cosine in zip(due, cosines, strict=True):
        lead = layout.kept(first)
        factor = lead.get("radius_factor", 1.0) * math.exp(_ADAPT_RATE * cosine)
        lead["radius_factor"] = min(max(factor, _ADAPT_RANGE[0]), _ADAPT_RANGE[1])


def _cosines(
    layout: Layout, gradients: Gradients, due: list[tuple[int, tuple[int, ...]]]
) -> list[float]:
    """Returns cos(g, m) over the members of each layer that is due."""
    indices = [index for _, members in due for index in members]
    spread = layout.spread(indices)
    momenta = [momentum(layout, index) for index in indices]
    # Divided first: the product of two gradients of 1e-20 is 0 in float32.
    units = [gradients.values[i] / gradients.norms[i] for i in indices]
    inner = dict(zip(indices, inner_products(units, momenta, spread), strict=True))
    length = dict(zip(indices, norms(momenta, spread), strict=True))
    cosines = []
    for _, members in due:
        top = sum(inner[i] * gradients.norms[i] for i in members)
        here = math.hypot(*(gradients.norms[i] for i in members))
        before = math.hypot(*(length[i] for i in members))
        cosines.append(top / here / before if before > 0.0 else 0.0)
    return cosines
