"""The published rules of peers, from their formulas, on the same training run.

Each takes the snapshots of one run (the first that the oracle makes, at a usual
learning rate) and names the layers it flags as vanishing, exploding or dead. The
thresholds are the published defaults. Where a tool watches epochs, an epoch is the
distance between two snapshots (25 steps of 64 samples).

Left out, because the numbers could not be found: TheDeepChecker's thresholds for
vanishing and exploding gradients (the code names them, its settings file was not
at hand) and the parts of SageMaker's PoorWeightInitialization that depend on the
loss curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.detection.observe import Gradient, Output, Snapshot

RECTIFIED = ("ReLU",)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The layers that a peer flags; None where it has no such rule."""

    vanishing: tuple[str, ...] | None = None
    exploding: tuple[str, ...] | None = None
    dead: tuple[str, ...] | None = None


Run = Sequence[Snapshot]


def autotrainer(run: Run) -> Flags:
    """AutoTrainer (Zhang et al., ICSE 2021), ``utils/monitor.py``.

    Judged only while the run has not converged (best accuracy below Θ = 0.7, from
    30 % of the run on) or stands still (no gain in accuracy of δ = 0.01).
    Vanishing: ‖g₁‖/‖gₙ‖ < 10⁻³ and ‖g₁‖ < 10⁻⁴. Exploding: ‖g₁‖/‖gₙ‖ > 70, or NaN.
    Dying ReLU: 70 % of all gradient elements are exactly zero. Of one run it
    reports one, in the order dying ReLU, exploding, vanishing.
    """
    accuracies = [s.accuracy for s in run if s.accuracy is not None]
    blank = Flags(vanishing=(), exploding=(), dead=())
    if not all(s.finite for s in run):
        return Flags(vanishing=(), exploding=("model",), dead=())
    rises = [b - a for a, b in pairwise(accuracies)]
    late = len(run) >= 0.3 * EPOCHS
    stuck = max(rises, default=0.0) < 0.01 or max(accuracies, default=0.0) < 0.7
    if not accuracies or not late or not stuck:
        return blank
    for snapshot in run:
        kernels = [g for g in snapshot.gradients if g.matrix]
        zeros = sum(g.zeros for g in snapshot.gradients)
        if zeros >= 0.7 * sum(g.numel for g in snapshot.gradients):
            return Flags(vanishing=(), exploding=(), dead=("model",))
        ratio = _ratio(kernels[0].norm, kernels[-1].norm)
        if ratio > 70:
            return Flags(vanishing=(), exploding=(_owner(kernels[0]),), dead=())
        if ratio < 1e-3 and kernels[0].norm < 1e-4:
            return Flags(vanishing=(_owner(kernels[0]),), exploding=(), dead=())
    return blank


EPOCHS = 12


def sagemaker(run: Run) -> Flags:
    """Amazon SageMaker Debugger, developer guide, “List of built-in rules”.

    VanishingGradient: mean |g| of a gradient tensor < 10⁻⁷. ExplodingTensor: a
    value is NaN or infinite. DeadRelu: a ReLU that is active in less than 1 % is
    inactive; more than 50 % of a layer's ReLUs are inactive.
    """
    return Flags(
        vanishing=_owners(g for s in run for g in s.gradients if g.mean_abs < 1e-7),
        exploding=() if all(s.finite for s in run) else ("model",),
        dead=_names(o for s in run for o in _relus(s) if o.inactive > 0.5),
    )


def deepdiagnosis(run: Run) -> Flags:
    """DeepDiagnosis (Wardat et al., ICSE 2022), ``callback/callbacks.py``.

    Vanishing: mean |g| of a weight < 10⁻⁷. Numerical error: the mean of an output
    or of a weight's gradient is NaN or infinite (exploding), or exactly 0 (counted
    as vanishing, for gradients). Dead node: 70 % of a rectifier's outputs are at or
    below 0, at the last epoch.
    """
    kernels = [g for s in run for g in s.gradients if g.matrix]
    return Flags(
        vanishing=_owners(g for g in kernels if g.mean_abs < 1e-7 or g.mean == 0),
        exploding=() if all(s.finite for s in run) else ("model",),
        dead=_names(o for o in _rectifiers(run[-1]) if o.idle >= 0.7),
    )


def deepchecker(run: Run) -> Flags:
    """TheDeepChecker (Ben Braiek and Khomh, arXiv 2204.00694), ``hooks.py``.

    Dead: the 95th percentile of |activation| is below 10⁻⁵ for more than half of
    the units of a layer; looked at from the tenth step on. The numbers are those of
    its authors' later PyTorch debugger.
    """
    late = run[1:] or run
    return Flags(dead=_names(o for s in late for o in _relus(s) if o.quiet > 0.5))


def torchlens(run: Run) -> Flags:
    """TorchLens, ``debug/_gradients.py`` (``gradient_flow_audit``).

    For the gradient at each operation's output: vanishing 0 < ‖g‖ < 10⁻⁷,
    exploding ‖g‖ > 10⁴ or not finite, dead ‖g‖ = 0. It audits one backward pass:
    here the first. Operations stand for module calls.
    """
    seen = [o for o in run[0].outputs if not _missing(o, run[0])]
    return Flags(
        vanishing=_names(o for o in seen if 0 < o.gradient < 1e-7),
        exploding=_names(o for o in seen if not o.gradient <= 1e4),
        dead=_names(o for o in seen if o.gradient == 0),
    )


def torchmortem(run: Run) -> Flags:
    """torchmortem, ``detectors/gradient_flow.py`` and ``detectors/dead_units.py``.

    On ‖g‖ at the outputs of modules with parameters. Vanishing: over the second half
    of the run, mean of the last over mean of the first ≥ 100; or a layer stalls,
    ‖g‖ < 10⁻⁸ in 30 % of the steps. Exploding: ‖g‖ > 1000 at any step. Dead: more
    than half of a module's outputs are below 10⁻⁶ in half of the late steps.
    """
    half = run[len(run) // 2 :]
    layers = _late_means(half)
    names = list(layers)
    starved: list[str] = []
    if len(names) >= 2:
        first, last = layers[names[0]], layers[names[-1]]
        if first < 1e-30 or (last >= 1e-30 and last / first >= 100):
            starved = sorted(names, key=layers.__getitem__)[:3]
    stalled = [n for n in names if _stalled(run, n)]
    large = (o for s in run for o in s.outputs if o.weighted and o.gradient > 1000)
    active = {o.name for s in half for o in s.outputs}
    return Flags(
        vanishing=tuple(dict.fromkeys([*starved, *stalled])),
        exploding=_names(large),
        dead=tuple(n for n in sorted(active) if _mostly_flat(half, n)),
    )


PEERS: dict[str, Callable[[Run], Flags]] = {
    "AutoTrainer": autotrainer,
    "SageMaker Debugger": sagemaker,
    "DeepDiagnosis": deepdiagnosis,
    "TheDeepChecker": deepchecker,
    "TorchLens": torchlens,
    "torchmortem": torchmortem,
}


def _ratio(first: float, last: float) -> float:
    if last:
        return first / last
    return math.inf if first else math.nan


def _owner(gradient: Gradient) -> str:
    return gradient.name.rpartition(".")[0] or gradient.name


def _owners(found: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_owner(g) for g in found))  # type: ignore[attr-defined]


def _names(found: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(o.name for o in found))  # type: ignore[attr-defined]


def _relus(snapshot: Snapshot) -> list[Output]:
    return [o for o in snapshot.outputs if o.kind in RECTIFIED]


def _rectifiers(snapshot: Snapshot) -> list[Output]:
    return [o for o in snapshot.outputs if o.kind in (*RECTIFIED, "Exp")]


def _missing(output: Output, snapshot: Snapshot) -> bool:
    """Tells a gradient that never came from one that is NaN."""
    return math.isnan(output.gradient) and snapshot.finite


def _late_means(half: Run) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for snapshot in half:
        for output in snapshot.outputs:
            if output.weighted:
                kept = 0.0 if _missing(output, snapshot) else output.gradient
                values.setdefault(output.name, []).append(kept)
    return {name: sum(v) / len(v) for name, v in values.items()}


def _stalled(run: Run, name: str) -> bool:
    seen = [o.gradient for s in run for o in s.outputs if o.name == name]
    return sum(g < 1e-8 for g in seen) >= 0.3 * len(seen)


def _mostly_flat(half: Run, name: str) -> bool:
    seen = [o.flat for s in half for o in s.outputs if o.name == name]
    return sum(flat > 0.5 for flat in seen) >= 0.5 * len(seen)
