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
from vgaudit.flow.deep import (
    AttentionFlow,
    DeepFlow,
    JacobianFlow,
    MeanFieldLayer,
    NoiseFlow,
    Price,
    StreamPoint,
    TheoryFlow,
)
from vgaudit.flow.exponents import (
    Exponents,
    FormatLoss,
    ParameterPrecision,
    UpdateFlow,
)
from vgaudit.flow.figures import Histogram, Interval, Moments
from vgaudit.flow.layers import ActivationFlow, LayerFlow, ParameterFlow
from vgaudit.flow.recurrence import GateFlow, RecurrenceFlow
from vgaudit.flow.static import PlainStretch, StaticFlow, StaticLayer
from vgaudit.flow.transport import (
    Arrival,
    Blocker,
    BranchFlow,
    Cause,
    Merge,
    TrunkStep,
)
from vgaudit.flow.whole import Audit, GradientFlow, LossFlow, Precision

__all__ = [
    "ActivationFlow",
    "Arrival",
    "AttentionFlow",
    "Audit",
    "Blocker",
    "BranchFlow",
    "Cause",
    "DataFacts",
    "DeepFlow",
    "Exponents",
    "FormatLoss",
    "GateFlow",
    "GradientFlow",
    "Histogram",
    "Interval",
    "JacobianFlow",
    "LayerFlow",
    "LossFlow",
    "MeanFieldLayer",
    "Merge",
    "Moments",
    "NoiseFlow",
    "NotMeasured",
    "ParameterFlow",
    "ParameterPrecision",
    "PlainStretch",
    "Precision",
    "Price",
    "RecurrenceFlow",
    "RunFacts",
    "Source",
    "StaticFlow",
    "StaticLayer",
    "StreamPoint",
    "Structure",
    "StructureRow",
    "Target",
    "TheoryFlow",
    "TrunkStep",
    "UpdateFlow",
]
