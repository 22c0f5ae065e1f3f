"""The circumstances of a measurement, and the structure of a model: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a layer is called from: a file (as Python names it) and a line."""

    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """A part of the model that could not be measured, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureRow:
    """One row of a model's structure: the layer table without figures."""

    path: str
    type: str
    depth: int | None
    trunk: bool
    weighted: bool
    activation: bool
    parameters: int
    source: Source | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """The dataflow of a model, found without computing anything.

    Attributes:
        rows: parametric operations and activations, in forward order.
        weight_layers: weight layers on the longest path.
        cut_nodes: tensors through which everything passes.
        branches: chains of weight layers beside the trunk.
        unused: trainable parameters that the output does not depend on.
        not_measured: what a scan would not see, with the reason.
    """

    rows: tuple[StructureRow, ...]
    weight_layers: int
    cut_nodes: int
    branches: int
    unused: tuple[str, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The model that was scanned, and where it came from.

    Attributes:
        spec: as the user gave it.
        format: ``safetensors``, ``state_dict``, ``module-pickle``, ``factory`` …
        sha256: of the file (of the index, for sharded files); None for zoo names.
        trust_tier: ``T0`` … ``T3``.
        architecture: class or zoo name.
        parameters: number of elements. trainable: with ``requires_grad``.
        stripped_prefixes: prefixes removed from the keys of a state_dict.
        notes: statements for the user (legacy format, recognised architecture …).
        archive_notes: suspicious members of the archive.
        nonfinite_weights: names of parameters and buffers with NaN or infinity.
        missing_keys, unexpected_keys: tolerated by ``--allow-missing``.
        arch: the architecture as the user named it beside the weights, or empty.
        frozen_mode: exported in eval mode, so that batch norm and dropout cannot be
            switched to training.
    """

    spec: str
    format: str
    trust_tier: str
    architecture: str
    parameters: int
    trainable: int
    sha256: str | None = None
    stripped_prefixes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    archive_notes: tuple[str, ...] = ()
    nonfinite_weights: tuple[str, ...] = ()
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    frozen_mode: bool = False
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """Where the batches came from.

    Attributes:
        kind: ``synthetic`` or ``real``.
        spec: as the user gave it; a description for synthetic data.
        loss: name of the loss, or ``jacobian``.
        skipped: samples or files that could not be used, and why.
        notes: statements for the user.
    """

    kind: Literal["synthetic", "real"]
    spec: str
    loss: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The environment of a run; ``world_size`` processes shared it."""

    torch: str
    python: str
    device: str
    seed: int
    seconds: float
    sandbox: str = "not sandboxed"
    nondeterministic: tuple[str, ...] = ()
    world_size: int = 1
