"""The rules, one file each, in one table.

A rule is added by its file and its line in ``RULES``; two rules with one code or
one name are an error at import.
"""

from __future__ import annotations

from vgaudit.rules.adam_floor import AdamFloor
from vgaudit.rules.attention_entropy_collapse import AttentionEntropyCollapse
from vgaudit.rules.dead_units import DeadUnits
from vgaudit.rules.disconnected_parameter import DisconnectedParameter
from vgaudit.rules.exploding_activation import ExplodingActivation
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.exploding_step import ExplodingStep
from vgaudit.rules.exploding_through_time import ExplodingThroughTime
from vgaudit.rules.forward_collapse import ForwardCollapse
from vgaudit.rules.frozen_mode import FrozenMode
from vgaudit.rules.gain_mismatch import GainMismatch
from vgaudit.rules.gradient_noise import GradientNoise
from vgaudit.rules.incomplete_weights import IncompleteWeights
from vgaudit.rules.nonfinite_gradient import NonfiniteGradient
from vgaudit.rules.nonfinite_weight import NonfiniteWeight
from vgaudit.rules.precision_underflow import PrecisionUnderflow
from vgaudit.rules.rank_collapse import RankCollapse
from vgaudit.rules.rule import Example, Rule, Training
from vgaudit.rules.saturated_activation import SaturatedActivation
from vgaudit.rules.saturating_stack import SaturatingStack
from vgaudit.rules.skipped_data import SkippedData
from vgaudit.rules.stalled_update import StalledUpdate
from vgaudit.rules.suspicious_archive_member import SuspiciousArchiveMember
from vgaudit.rules.theory_disagreement import TheoryDisagreement
from vgaudit.rules.uncalibrated_normalization import UncalibratedNormalization
from vgaudit.rules.uninformative_loss import UninformativeLoss
from vgaudit.rules.unnormalized_input import UnnormalizedInput
from vgaudit.rules.update_ratio import UpdateRatio
from vgaudit.rules.update_swallowed import UpdateSwallowed
from vgaudit.rules.vanishing_decay import VanishingDecay
from vgaudit.rules.vanishing_gradient import VanishingGradient
from vgaudit.rules.vanishing_through_time import VanishingThroughTime
from vgaudit.rules.zero_gradient import ZeroGradient

__all__ = ["RULES", "Example", "Rule", "Training", "table"]


def table(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Returns the rules in order of their codes.

    Raises:
        ValueError: two of them have the same code or the same name.
    """
    for attribute in ("code", "name"):
        seen: dict[str, Rule] = {}
        for rule in rules:
            key = getattr(rule, attribute)
            if key in seen:
                both = f"{type(seen[key]).__name__} and {type(rule).__name__}"
                raise ValueError(f"{both} have the same {attribute}: {key}")
            seen[key] = rule
    return tuple(sorted(rules, key=lambda rule: rule.code))


RULES: tuple[Rule, ...] = table(
    (
        NonfiniteWeight(),
        IncompleteWeights(),
        SuspiciousArchiveMember(),
        UncalibratedNormalization(),
        FrozenMode(),
        VanishingGradient(),
        VanishingDecay(),
        ZeroGradient(),
        DisconnectedParameter(),
        StalledUpdate(),
        PrecisionUnderflow(),
        NonfiniteGradient(),
        VanishingThroughTime(),
        ExplodingGradient(),
        ExplodingStep(),
        ExplodingActivation(),
        ExplodingThroughTime(),
        SaturatedActivation(),
        DeadUnits(),
        AttentionEntropyCollapse(),
        SaturatingStack(),
        GainMismatch(),
        SkippedData(),
        UninformativeLoss(),
        UnnormalizedInput(),
        UpdateRatio(),
        UpdateSwallowed(),
        AdamFloor(),
        GradientNoise(),
        TheoryDisagreement(),
        ForwardCollapse(),
        RankCollapse(),
    )
)
