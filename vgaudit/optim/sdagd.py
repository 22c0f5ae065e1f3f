"""SDAGD: steps of a fixed relative length, layer by layer, damped by curvature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from vgaudit.errors import BadConfig
from vgaudit.optim.averages import directions, move, update_momenta
from vgaudit.optim.curvature import LossLike, draw, generator_for, has_factor
from vgaudit.optim.gradients import Gradients, centre_and_measure
from vgaudit.optim.layers import Scope, layout_of, named_groups, weight_layers
from vgaudit.optim.observer import Observer
from vgaudit.optim.options import check_options, check_rule, given
from vgaudit.optim.phase import LayerPhase, phase_of
from vgaudit.optim.radius import Radius, Rule, Solve, adapt_radius, set_damping
from vgaudit.optim.sharding import local
from vgaudit.optim.state import check_saved, keep_types

ADAPT_ABOVE = 20
"""Weight layers above which the radius adapts itself by default."""


class SDAGD(Optimizer):
    """Stochastic diagonal approximate greatest descent, as an ordinary optimizer.

    For each tensor of each layer, with the centred gradient g, its average m, and
    the curvature h, all bias-corrected::

        R = lr · ‖w‖        μ = rms(‖g‖) / R        w ← w − m / (μ + κ h)

    ``lr`` is the relative radius, so torch's schedulers work on it. Nothing depends
    on the scale of the loss. ``literal=True`` is the published formula instead.
    ``docs/sdagd.md`` says what is the paper's, what is ours, and what was measured.

    Curvature is off (``kappa=0``) unless asked for. With ``kappa > 0``, call
    ``observe(output, loss, targets)`` between the forward pass and ``backward()``,
    in the training loop or in the closure.

    ``lr``, ``momentum``, ``centring``, ``kappa``, ``weight_decay`` and ``maximize``
    may differ between parameter groups; the rest holds for the whole optimizer.
    Under DDP every process must observe before the same steps. Sharded parameters
    (FSDP2) work without curvature. Each step waits for the device twice.

    Args:
        params: ``model.named_parameters()``, or groups of such; names are needed.
        lr: relative radius; ``0.1 / √L`` for L weight layers if None. With
            ``radius="absolute"`` the radius itself; 0.5 if None.
        momentum: β of m. Default 0.9; 0 with ``literal``.
        norm_decay: β of rms(‖g‖) and of the centring. Default 0.9; 0 with ``literal``.
        centring: train (weight, bias) pairs as if inputs had mean zero. Default
            True; False with ``literal``.
        kappa: weight of the curvature. Default 0; 1 with ``literal``.
        every: steps between two observations of curvature.
        curvature_decay: β of h, counted in observations.
        solve: ``agd``, or ``trust`` for the smallest μ that keeps the step in R.
        adapt: let each layer's radius follow the agreement of g and m. Default:
            above 20 weight layers; False with ``literal``.
        scope: what shares one μ: ``tensor`` (default), ``layer`` (weight and bias,
            default with ``literal``), or ``global``, an ablation that cannot train
            deep sigmoid networks.
        radius: ``relative`` (default) or ``absolute`` (default with ``literal``).
        weight_decay: decoupled: w shrinks by ``lr · weight_decay`` of itself.
        maximize: climb.
        literal: the defaults of the published formula; what is given still counts.
        seed: of the random cotangents, beside step and process.
        process_group: whose observations are averaged; all processes if None.

    Raises:
        BadConfig: a value out of range, unnamed or complex parameters.
    """

    def __init__(  # noqa: PLR0913 - hyper-parameters are the signature, as in torch.optim
        self,
        params: Iterable[Any],
        lr: float | None = None,
        *,
        momentum: float | None = None,
        norm_decay: float | None = None,
        centring: bool | None = None,
        kappa: float | None = None,
        every: int = 10,
        curvature_decay: float = 0.95,
        solve: Solve = "agd",
        adapt: bool | None = None,
        scope: Scope | None = None,
        radius: Radius | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        literal: bool = False,
        seed: int = 0,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        groups = named_groups(params, owner="SDAGD")
        depth = max(1, weight_layers(groups))
        radius = radius or ("absolute" if literal else "relative")
        self._rule = Rule(
            scope=scope or ("layer" if literal else "tensor"),
            radius=radius,
            solve=solve,
            norm_decay=given(norm_decay, 0.0 if literal else 0.9),
            adapt=given(adapt, not literal and depth > ADAPT_ABOVE),
            curvature_decay=curvature_decay,
            every=every,
            seed=seed,
        )
        check_rule(self._rule)
        self._observer = Observer(process_group)
        self._warned = False
        usual = 0.1 / math.sqrt(depth) if radius == "relative" else 0.5
        defaults: dict[str, Any] = {
            "lr": given(lr, usual),
            "momentum": given(momentum, 0.0 if literal else 0.9),
            "centring": given(centring, not literal),
            "kappa": given(kappa, 1.0 if literal else 0.0),
            "weight_decay": weight_decay,
            "maximize": maximize,
            "steps": 0,
        }
        super().__init__(groups, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of named parameters, as ``torch.optim`` does.

        Raises:
            BadConfig: a value out of range, unnamed or complex parameters.
        """
        (group,) = named_groups(param_group, owner="SDAGD")
        check_options({**self.defaults, **group})
        super().add_param_group(group)
        self._arrange()

    def _arrange(self) -> None:
        self._layout = layout_of(self.param_groups, self.state, self._rule.scope)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_rule": self._rule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_observer", Observer())
        self.__dict__.setdefault("_warned", False)
        self._arrange()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what ``state_dict()`` gave; averages keep their types.

        Raises:
            BadConfig: it is another optimizer's.
        """
        check_saved(state_dict, self.defaults)
        super().load_state_dict(state_dict)
        keep_types(state_dict, self.param_groups, self.state)

    def observe(
        self,
        output: Tensor,
        loss: LossLike,
        targets: Tensor | None = None,
        *,
        scale: float = 1.0,
    ) -> bool:
        """Draws one estimate of the curvature, if one is due before this step.

        One more backward pass, every ``every`` steps. Call it between the forward
        pass and ``backward()``; with gradient accumulation, for every micro-batch.

        Args:
            output: what the loss is computed from, ``[N, …]``; logits for
                ``cross-entropy`` and ``bce-with-logits``.
            loss: ``cross-entropy``, ``nll``, ``mse``, ``bce-with-logits``, one of
                torch's modules for these (its weights and reduction count), or a
                function ``(output, generator) -> s`` with ``E[s sᵀ]`` the Hessian of
                the loss. For anything else the curvature is 0, with a warning.
            targets: needed for class weights, ``ignore_index`` and ``pos_weight``.
            scale: what the loss is multiplied by.

        Returns:
            whether an estimate was drawn.

        Raises:
            BadConfig: an unknown name, targets that are missing or no classes, a
                negative scale.
            CannotRun: the graph is gone, or the parameters are sharded.
        """
        if scale < 0.0:
            raise BadConfig(f"scale is {scale}", hint="curvature needs scale >= 0")
        if not has_factor(loss):
            self._warn(f"no curvature is known for {type(loss).__name__}: h = 0")
            return False
        steps = self.param_groups[0]["steps"]
        if steps % self._rule.every:
            return False
        watched = [
            index
            for index, slot in enumerate(self._layout.slots)
            if slot.param.requires_grad and self._layout.option(index, "kappa") > 0.0
        ]
        if not watched:
            return False
        key = (self._rule.seed, steps, self._observer.rank, self._observer.draws)
        generator = generator_for(output.device, *key)
        cotangent = draw(output, loss, targets, generator) * math.sqrt(scale)
        self._observer.add(self._layout, watched, output, cotangent)
        return True

    def forget(self) -> None:
        """Drops what was observed since the last step, where that step is left out."""
        self._observer.forget()

    def _warn(self, message: str) -> None:
        if not self._warned:
            warnings.warn(message, stacklevel=3)
            self._warned = True

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Moves every layer whose gradient is finite and not zero.

        Args:
            closure: clears the gradients, computes the loss, goes backward, and
                returns the loss; may call ``observe`` on the way.

        Raises:
            CannotRun: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._fold_curvature()
        layout = self._layout
        gradients = centre_and_measure(layout, decay=self._rule.norm_decay)
        for layer in gradients.refused:
            lead = layout.kept(layer.members[0])
            lead["refused"] = lead.get("refused", 0) + 1
        if self._rule.adapt:
            adapt_radius(layout, gradients)
        update_momenta(layout, gradients)
        set_damping(layout, gradients, self._rule)
        self._move(gradients)
        for group in self.param_groups:
            group["steps"] += 1
        return loss

    def _fold_curvature(self) -> None:
        observed = self._observer.fold(self._layout, self._rule.curvature_decay)
        wanted = any(group["kappa"] > 0.0 for group in self.param_groups)
        first = self.param_groups[0]["steps"] == 0
        if wanted and first and not observed:
            self._warn(
                "kappa > 0 and no curvature was observed before the first step: call "
                "observe(output, loss, targets) before backward(); until then h = 0"
            )

    def _move(self, gradients: Gradients) -> None:
        layout = self._layout
        damping = {
            index: layout.kept(block[0])["mu"]
            for layer, members in gradients.moving
            for block in layer.blocks
            for index in block
            if index in members
        }
        scratch = {index: gradients.values[index] for index in gradients.centres}
        moves = directions(layout, damping, scratch)
        for index in moves:
            decay = layout.option(index, "weight_decay")
            if decay:
                shrink = 1.0 - float(layout.option(index, "lr")) * decay
                local(layout.param(index)).mul_(shrink)
        move(layout, gradients, moves)

    @torch.no_grad()
    def phases(self) -> tuple[LayerPhase, ...]:
        """Returns where each layer that has moved stood in its last step.

        Computed from the state when asked for; a step pays nothing for it.
        """
        return tuple(
            phase_of(self._layout, layer)
            for layer in self._layout.layers
            if any("mu" in self._layout.kept(block[0]) for block in layer.blocks)
        )
