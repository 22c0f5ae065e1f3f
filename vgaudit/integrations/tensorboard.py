"""Scalars for TensorBoard, from whatever has its ``add_scalar``."""

from __future__ import annotations

from typing import Any, Protocol

from vgaudit.findings import Report
from vgaudit.flow import GradientFlow
from vgaudit.integrations.scalars import PREFIX, judged, scalars


class Writer(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` is, as far as it is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Adds a point to the curve ``tag``."""


def log(
    writer: Writer, measured: GradientFlow | Report, step: int, *, layers: bool = False
) -> None:
    """Writes the figures of a flow or a report as scalars.

    Args:
        writer: a ``SummaryWriter``, or anything with its ``add_scalar``.
        measured: what ``probe.flow()`` or ``probe.report()`` returned.
        step: of the training.
        layers: a curve for each weight layer too: decades between its output and
            the network's.
    """
    if isinstance(measured, Report):
        values = judged(measured)
        flow = measured.audit.flow if measured.audit is not None else None
    else:
        values, flow = scalars(measured), measured
    for name, value in values.items():
        writer.add_scalar(name, value, step)
    if not layers or flow is None:
        return
    for layer in flow.layers:
        if layer.weighted and layer.call == 0 and layer.attenuation is not None:
            tag = f"{PREFIX}/layers/{layer.path}"
            writer.add_scalar(tag, layer.attenuation.value, step)
