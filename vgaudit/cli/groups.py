"""The groups of options that commands share.

A command that needs another default, or fewer options, takes the smaller group and
declares the rest itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.cli import options as o


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How the module is built."""

    arch: o.Arch = None
    model_arg: o.ModelArg = None
    allow_missing: o.AllowMissing = False
    pretrained: o.Pretrained = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where the weights of one model are."""

    weights: o.Weights = None
    key: o.Key = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the model is run on."""

    data: o.Data = None
    input: o.Input = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring(Sample):
    """What is measured, and where."""

    loss: o.Loss = None
    batches: o.Batches = 4
    mode: o.ModeOption = o.Mode.train
    device: o.Device = "cpu"
    dtype: o.Dtype = "auto"
    seed: o.Seed = 0
    output: o.OutputOption = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """By which rules and limits."""

    optimizer: o.OptimizerOption = o.OptimizerName.sgd
    select: o.Select = None
    ignore: o.Ignore = None
    set: o.Set = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating(Judging):
    """What fails the gate."""

    fail_on: o.FailOnOption = o.FailOn.error
    exit_zero: o.ExitZero = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """Where the report goes, and in which form."""

    format: o.Format = "text"
    report: o.ReportTo = None
    force: o.Force = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeReporting:
    """Where the report on a change goes, and in which form."""

    format: o.ChangeFormat = "text"
    report: o.ReportTo = None
    force: o.Force = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What is said on standard error."""

    quiet: o.Quiet = False
    no_progress: o.NoProgress = False
    debug: o.Debug = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What of the user's files may run, and what holds it."""

    allow_code: o.AllowCode = False
    trust_pickle: o.TrustPickle = ""
    import_path: o.ImportPath = None
    require_sandbox: o.RequireSandbox = False
    no_sandbox: o.NoSandbox = False
    env: o.Env = None
