"""Auto-rotated layers and trainable piecewise linear activations.

Ordinary modules, usable alone: ``auto_rotate`` and the ``AutoRotated…`` classes
(AR), and ``PiecewiseLinear`` (AdAct).
"""

from vgaudit.nn.activations import ACTIVATIONS, Activation, activation
from vgaudit.nn.calibration import Exceedance, calibrate_, center_, exceedance
from vgaudit.nn.convert import auto_rotate, bake, fold_, is_hub_conv1d
from vgaudit.nn.denominator import Denominator
from vgaudit.nn.grid import Grid
from vgaudit.nn.hits import watch_hinges
from vgaudit.nn.inputs import Inputs
from vgaudit.nn.limit import Limit, draw_limit
from vgaudit.nn.parameters import (
    Matrix,
    bake_parameter,
    fold_parameter_,
    parameter_size,
    rotate_parameter,
    rotated_parameters,
    set_parameter_limit_,
)
from vgaudit.nn.piecewise_linear import PiecewiseLinear
from vgaudit.nn.recurrent import (
    AutoRotatedGRU,
    AutoRotatedLSTM,
    AutoRotatedRNN,
    gate_limits,
)
from vgaudit.nn.rotated import (
    AutoRotatedConv1d,
    AutoRotatedConv2d,
    AutoRotatedConv3d,
    AutoRotatedLinear,
)
from vgaudit.nn.rotation import AutoRotation, Rotation
from vgaudit.nn.transposed import (
    AutoRotatedConvTranspose1d,
    AutoRotatedConvTranspose2d,
    AutoRotatedConvTranspose3d,
)
from vgaudit.nn.unfused import Unfused, unfuse

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AutoRotatedConv1d",
    "AutoRotatedConv2d",
    "AutoRotatedConv3d",
    "AutoRotatedConvTranspose1d",
    "AutoRotatedConvTranspose2d",
    "AutoRotatedConvTranspose3d",
    "AutoRotatedGRU",
    "AutoRotatedLSTM",
    "AutoRotatedLinear",
    "AutoRotatedRNN",
    "AutoRotation",
    "Denominator",
    "Exceedance",
    "Grid",
    "Inputs",
    "Limit",
    "Matrix",
    "PiecewiseLinear",
    "Rotation",
    "Unfused",
    "activation",
    "auto_rotate",
    "bake",
    "bake_parameter",
    "calibrate_",
    "center_",
    "draw_limit",
    "exceedance",
    "fold_",
    "fold_parameter_",
    "gate_limits",
    "is_hub_conv1d",
    "parameter_size",
    "rotate_parameter",
    "rotated_parameters",
    "set_parameter_limit_",
    "unfuse",
    "watch_hinges",
]
