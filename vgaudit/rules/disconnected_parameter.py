"""VG104: a trainable parameter that the backward pass never reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, LayerFlow, ParameterFlow
from vgaudit.plain import visible
from vgaudit.rules.examples import chain, parameter
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.wording import count, place


@dataclass(frozen=True, slots=True)
class DisconnectedParameter(Rule):
    """A trainable parameter gets no gradient at all.

    What it measures:
        Parameters with `requires_grad` whose `.grad` is still None after the
        backward pass of every batch, by the module that owns them, and whether
        that module ran in the forward pass.

    Why it matters:
        This is no vanishing gradient: there is no path for one. A module that
        runs and is cut off (`detach`, `no_grad`, `.item()`, a non-differentiable
        operation) costs compute and never learns, which is an error. A module that
        never runs is dead weight in the file, or an auxiliary head that this mode
        leaves out, which is a warning.

    False alarms:
        Heads that only run for some inputs or in the other mode; an output that
        `--output` leaves out.

    Treatments:
        Remove the `detach` or `no_grad` in between; freeze what shall not learn
        (`requires_grad_(False)`); remove modules that are not called.

    References:
        PyTorch documentation, “Autograd mechanics”, “Locally disabling gradient
        computation”.
    """

    code: ClassVar[str] = "VG104"
    name: ClassVar[str] = "disconnected-parameter"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example(
            "a detached branch",
            parameter(chain(), "layers.4.weight", connected=False),
            "error",
        ),
        Example(
            "a module that never ran",
            parameter(chain(), "layers.4.weight", connected=False, called=False),
            "warning",
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("every parameter is reached", chain()),
        Example(
            "a frozen parameter",
            parameter(chain(), "layers.4.weight", connected=False, trainable=False),
        ),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each part of the model that is cut off."""
        sources = {layer.path: layer for layer in audit.flow.layers if layer.call == 0}
        groups: dict[tuple[str, bool], list[ParameterFlow]] = {}
        for parameter_flow in audit.flow.parameters:
            if parameter_flow.trainable and not parameter_flow.connected:
                part = parameter_flow.name.partition(".")[0]
                groups.setdefault((part, parameter_flow.called), []).append(
                    parameter_flow
                )
        for (_, called), cut in groups.items():
            yield self._finding(cut, called, sources)

    def _finding(
        self,
        cut: Sequence[ParameterFlow],
        called: bool,
        layers: dict[str, LayerFlow],
    ) -> Finding:
        modules = list(dict.fromkeys(p.name.rpartition(".")[0] or p.name for p in cut))
        numbers = count(sum(p.numel for p in cut), "number")
        why = (
            "its forward pass ran, but no gradient comes back (detach, no_grad, or a "
            "non-differentiable operation)"
            if called
            else "its forward pass never ran"
        )
        first = layers.get(modules[0])
        return Finding(
            code=self.code,
            name=self.name,
            level="error" if called else "warning",
            layer=place(modules),
            layers=tuple(modules),
            message=(
                f"{count(len(cut), 'trainable parameter')} ({numbers}) of "
                f"{visible(place(modules))} disconnected: {why}"
            ),
            value=float(len(cut)),
            limit=0.0,
            unit="parameters",
            fix=self.advice(
                "remove the detach or no_grad in between, or freeze the parameters",
                f"their module ran, and not one of {numbers} can be trained",
            )
            if called
            else self.advice(
                "remove the module, or freeze its parameters",
                f"{numbers} are saved, and synchronised, without ever being trained",
            ),
            source=first.source if first else None,
        )
