"""What kind of operation an autograd node is."""

from __future__ import annotations

import re

from torch import Tensor
from torch.autograd.graph import Node

from vgaudit.flow import Cause

_SUFFIX = re.compile(r"Backward(ForwardAD)?\d*$|^torch::autograd::")
_HANDED_ON = "RegisterPostBackwardFunctionBackward"

_ACTIVATIONS = frozenset(
    {
        "Relu",
        "Sigmoid",
        "Tanh",
        "Gelu",
        "Silu",
        "Hardswish",
        "Hardtanh",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Mish",
        "PreluKernel",
        "_PiecewiseLinear",
        "Threshold",
        "Hardsigmoid",
        "LogSigmoid",
        "LogSigmoidForward",
        "RreluWithNoise",
        "Softshrink",
        "Hardshrink",
        "Clamp",
        "ClampMin",
        "ClampMax",
        "Erf",
        "Atan",
        "Sin",
        "Cos",
        "Exp",
        "Glu",
        "LogSoftmax",
        "Square",
        "Pow",
    }
)
_NORMALIZATIONS = frozenset(
    {
        "NativeBatchNorm",
        "CudnnBatchNorm",
        "MiopenBatchNorm",
        "BatchNormImplIndex",
        "NativeLayerNorm",
        "NativeGroupNorm",
        "FusedRmsNorm",
        "RmsNorm",
        "LinalgVectorNorm",
        "WeightNormInterface",
        "NormalizationFunctional",
    }
)
_POOLS = frozenset(
    {
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "MaxPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "AdaptiveAvgPool2D",
        "AdaptiveAvgPool3D",
        "AdaptiveMaxPool2D",
        "AdaptiveMaxPool3D",
        "Mean",
        "Sum",
        "Amax",
        "Max",
        "NativeDropout",
        "FusedDropout",
        "UpsampleNearest2D",
        "UpsampleBilinear2D",
        "UpsampleNearestExact2D",
        "UpsampleBicubic2D",
        "GridSampler2D",
    }
)
_RESHAPES = frozenset(
    {
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "T",
        "Transpose",
        "Permute",
        "Squeeze",
        "Unsqueeze",
        "Clone",
        "Alias",
        "Slice",
        "Select",
        "ToCopy",
        "Flatten",
        "Roll",
        "AsStrided",
        "Split",
        "SplitWithSizes",
        "Unbind",
        "UnfoldBackward",
        "Contiguous",
        "Narrow",
        "Movedim",
        "PixelShuffle",
        "PixelUnshuffle",
        "Detach",
        "ViewAsReal",
        "ViewAsComplex",
    }
)
_WEIGHTS = frozenset(
    {
        "Addmm",
        "Mm",
        "Bmm",
        "Baddbmm",
        "Linear",
        "Convolution",
        "ConvolutionOverrideable",
        "SlowConvTranspose2D",
        "Embedding",
        "EmbeddingBag",
        "Mv",
        "Addmv",
        "Dot",
        "Bilinear",
        "Addbmm",
        "MkldnnLinear",
        "MkldnnConvolution",
        "CudnnConvolution",
        "Trilinear",
    }
)
_MERGES = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Cat",
        "Stack",
        "Expand",
        "Repeat",
        "Index",
        "IndexPut",
        "Where",
    }
)


def kind(node_name: str) -> str:
    """Returns the bare name of an operation: ``AddmmBackward0`` → ``Addmm``."""
    return _SUFFIX.sub("", node_name)


def behind(node: Node | None, number: int) -> tuple[Node | None, int]:
    """Returns the node, and its output, whose gradient a node hands on as it is.

    FSDP2 puts such nodes where a block begins, to know when its backward pass ends.
    """
    # Of a function written in Python, as this is, the name is that of its class.
    while type(node).__name__ == _HANDED_ON and node is not None:
        node, number = node.next_functions[number]
    return node, number


def following(node: Node) -> list[Node | None]:
    """Returns the next nodes towards the input, one for each edge."""
    return [behind(child, number)[0] for child, number in node.next_functions]


def made_by(tensor: Tensor) -> Node | None:
    """Returns the node that computed a tensor."""
    return behind(tensor.grad_fn, tensor.output_nr)[0]


def is_recurrent(name: str) -> bool:
    """Tells whether a bare name is a fused recurrent kernel."""
    return "Rnn" in name or "ThnnFused" in name


def is_weight(name: str) -> bool:
    """Tells whether an operation multiplies by a weight, if it has one."""
    return name in _WEIGHTS or is_recurrent(name)


def is_reshape(name: str) -> bool:
    """Tells whether an operation only moves values, keeping the norm of δ."""
    return name in _RESHAPES


def is_attention(name: str) -> bool:
    """Tells whether an operation is part of attention."""
    return name.startswith("ScaledDotProduct") or name in {"Softmax", "SafeSoftmax"}


def cause(name: str, *, parametric: bool, ways: int = 2) -> Cause:
    """Returns what a trunk step made of this operation is counted as.

    Args:
        name: of the operation.
        parametric: it multiplies by, or adds, what is learnt.
        ways: inputs that it sends a gradient to; a product with one is with a number,
            or with a tensor that needs no gradient.
    """
    if is_recurrent(name):
        return "recurrence"
    table: tuple[tuple[bool, Cause], ...] = (
        (name in _ACTIVATIONS, "activation"),
        (name in _NORMALIZATIONS, "normalization"),
        (is_attention(name), "attention"),
        (is_weight(name) and parametric, "weights"),
        (name in _POOLS, "pooling"),
        (name in _RESHAPES, "reshape"),
        (name in {"Add", "Sub", "Cat", "Stack"}, "merge"),
        (parametric, "weights"),
        (name in {"Mul", "Div"} and ways == 1, "scale"),
        (name in _MERGES or is_weight(name), "merge"),
    )
    return next((result for applies, result in table if applies), "other")
