"""What a scan measures, as plain immutable numbers: no tensor, no torch.

A measurement ends here. Rules read these values, reports render them, JSON
stores them. All gradients are stated *relative to the gradient at the output
of the network*, in decades (log10), so nothing depends on the scale of the
loss; the few absolute figures say so.
"""

from vgaudit.facts import (
    DataFacts,
    NotMeasured,
    RunFacts,
    Source,
    Structure,
    StructureRow,
    Target,
)
from vgaudit.flow.figures import Interval, Moments
from vgaudit.flow.layers import ActivationFlow, LayerFlow, ParameterFlow
from vgaudit.flow.recurrence import RecurrenceFlow
from vgaudit.flow.transport import Blocker, BranchFlow, Cause, TrunkStep
from vgaudit.flow.whole import Audit, GradientFlow, LossFlow, Precision

__all__ = [
    "ActivationFlow",
    "Audit",
    "Blocker",
    "BranchFlow",
    "Cause",
    "DataFacts",
    "GradientFlow",
    "Interval",
    "LayerFlow",
    "LossFlow",
    "Moments",
    "NotMeasured",
    "ParameterFlow",
    "Precision",
    "RecurrenceFlow",
    "RunFacts",
    "Source",
    "Structure",
    "StructureRow",
    "Target",
    "TrunkStep",
]
