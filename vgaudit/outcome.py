"""What the Python API returns: models with record and proof, loops with a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vgaudit.compare import Comparison
from vgaudit.conversion import Conversion, Edit, Refusal
from vgaudit.findings import Report
from vgaudit.fixing import Fixing
from vgaudit.judge import DEFAULT, Policy, judge
from vgaudit.probe.watch import Watch
from vgaudit.reports import html
from vgaudit.retraining import Retraining


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model with its proof.

    Attributes:
        model: a converted copy; the original stays as it is.
        conversion: all that was done, as plain values.
        comparison: the same scan before and after; None if it was not wanted.
    """

    model: nn.Module
    conversion: Conversion
    comparison: Comparison | None

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What was converted."""
        return self.conversion.edits

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What was not, and why."""
        return self.conversion.refusals

    @property
    def max_abs_diff(self) -> float:
        """The largest change of any output on the data, in train and in eval mode."""
        return self.conversion.max_abs_diff

    def _repr_html_(self) -> str:
        """Shows the conversion in a notebook."""
        return html.converted(self.conversion, self.comparison).fragment()


@dataclass(frozen=True, slots=True)
class Retrained:
    """A trained copy of a model, with all that was recorded and both scans.

    ``comparison`` is None where the scan after the training failed; a note of
    ``retraining`` says why.
    """

    model: nn.Module
    retraining: Retraining
    comparison: Comparison | None

    def _repr_html_(self) -> str:
        """Shows the training in a notebook."""
        return html.retrained(self.retraining, self.comparison).fragment()


class Watched(Watch):
    """A watched training loop that can be judged."""

    def report(self, policy: Policy = DEFAULT) -> Report:
        """Returns the verdict on what was measured so far.

        Raises:
            NothingMeasured: no forward pass with a backward pass was seen.
            BadConfig: the policy names what is unknown, as in ``Policy.check``.
        """
        return judge(self.audit(), policy)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A repaired copy of a model, or the model as it came, with all that was tried."""

    model: nn.Module
    fixing: Fixing

    def _repr_html_(self) -> str:
        """Shows the repair in a notebook."""
        return html.fixed(self.fixing).fragment()
