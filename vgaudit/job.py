"""What the command line asks of the worker: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vgaudit.ranks import Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        arch: a factory or zoo name that builds the module for bare weights.
        weights: a weights file for a spec that names an architecture.
        key: which entry of a checkpoint holds the weights.
        allow_code: run Python that comes with the file (T2).
        trust_pickle: unpickle anything (T3): empty no, ``yes``, or a sha256.
        allow_missing: tolerate missing and unexpected keys.
        pretrained: load the zoo's weights instead of a seeded initialisation.
        sha256: refuse the file unless it has this digest.
        model_args: keyword arguments for a factory, as text.
        import_paths: folders to append to the import path (with ``allow_code``).
        seed: for random initialisation.
    """

    arch: str | None = None
    weights: str | None = None
    key: str | None = None
    allow_code: bool = False
    trust_pickle: str = ""
    allow_missing: bool = False
    pretrained: bool = False
    sha256: str | None = None
    model_args: dict[str, str] = field(default_factory=dict)
    import_paths: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Which batches to run, and with which loss.

    Attributes:
        data: a data spec, or None for synthetic inputs.
        inputs: shapes, ``8x3x224x224`` or ``input_ids=long:4x16:1000``.
        loss: a loss spec, or None for the Jacobian probe (``auto`` with labels).
        batches: how many. batch_size: samples in each, None for automatic.
        seed: for synthetic inputs, shuffling and labels.
    """

    data: str | None = None
    inputs: tuple[str, ...] = ()
    loss: str | None = None
    batches: int = 4
    batch_size: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How to measure.

    Attributes:
        mode: ``train`` (dropout off) or ``eval``.
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        dtype: ``auto`` (the model's own), ``float32``, ``float64``, ``bfloat16`` …
        seed: for the cotangents.
        output: index or key of the output to use, None for all.
        unfreeze: measure frozen parameters too.
        allow_nonfinite: measure although weights are NaN or infinite.
        deep: also attention, precision, theory, singular values and noise, which
            cost many more passes.
        static: run no batch: judge by the weights and the graph alone.
        parallel: what several ranks do: ``ddp`` each has the whole model, ``fsdp``
            each has a part of every weight.
    """

    mode: Literal["train", "eval"] = "train"
    device: str = "cpu"
    dtype: str = "auto"
    seed: int = 0
    output: str | None = None
    unfreeze: bool = False
    allow_nonfinite: bool = False
    deep: bool = False
    static: bool = False
    parallel: Parallel = "ddp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """One scan, whole."""

    spec: str
    load: LoadOptions = field(default_factory=LoadOptions)
    data: DataOptions = field(default_factory=DataOptions)
    probe: ProbeOptions = field(default_factory=ProbeOptions)
