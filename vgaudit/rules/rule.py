"""What a rule is: a small frozen dataclass that reads an audit.

The docstring of a rule is its manual page, its fields are its thresholds, and
its examples are its tests. ``vgaudit explain``, ``docs/rules.md``, ``--set`` and
the test suite are all made from them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vgaudit.findings import Finding, Fix, Level, Optimizer, Report
from vgaudit.flow import Audit
from vgaudit.terms import Terms


@dataclass(frozen=True, slots=True)
class Training:
    """How the model will be trained: what makes a small gradient a defect.

    Attributes:
        optimizer: ``sgd``, whose step scales with the gradient, or ``adam``,
            whose step does not until the gradient nears its ε.
    """

    optimizer: Optimizer = "sgd"


@dataclass(frozen=True, slots=True)
class Example:
    """An audit that a rule must fire on, or stay quiet on.

    Attributes:
        shows: what it is an example of.
        audit: what the rule is given.
        level: the level of the worst finding; None where there must be none.
        training: how the model will be trained.
    """

    shows: str
    audit: Audit
    level: Level | None = None
    training: Training = Training()


@dataclass(frozen=True, slots=True)
class GateExample:
    """A report that a rule of the gate must fire on, or stay quiet on.

    Attributes:
        shows: what it is an example of.
        report: what the rule is given.
        terms: what the report is held to.
        level: the level of the worst finding; None where there must be none.
    """

    shows: str
    report: Report
    terms: Terms
    level: Level | None = None


class Page(ABC):
    """An entry of the manual: its code, its name, and the docstring of its class.

    Attributes:
        code: ``VG101``; never reused.
        name: the defect as a slug, ``vanishing-gradient``.
    """

    __slots__ = ()

    code: ClassVar[str]
    name: ClassVar[str]

    def advice(self, text: str, reason: str) -> Fix:
        """Returns a way out that this page explains.

        Args:
            text: what to do.
            reason: why it fits this finding: the figure that it follows from.
        """
        return Fix(command=f"vgaudit explain {self.code}", text=text, reason=reason)


class Rule(Page):
    """One thing that can be wrong with a model.

    Attributes:
        implied_by: codes that say the same and more: where one of them warns,
            this rule is quiet.
        transport: it reads the size of gradients, which means nothing while
            normalization statistics are uncalibrated.
        FIRES, QUIET: the examples.
    """

    __slots__ = ()

    implied_by: ClassVar[tuple[str, ...]] = ()
    transport: ClassVar[bool] = False
    FIRES: ClassVar[tuple[Example, ...]]
    QUIET: ClassVar[tuple[Example, ...]]

    @abstractmethod
    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields what is wrong, in any order."""


class GateRule(Page):
    """One thing that the user's own terms forbid, told from a judged report.

    Attributes:
        FIRES, QUIET: the examples.
    """

    __slots__ = ()

    FIRES: ClassVar[tuple[GateExample, ...]]
    QUIET: ClassVar[tuple[GateExample, ...]]

    @abstractmethod
    def decide(self, report: Report, terms: Terms) -> Iterator[Finding]:
        """Yields what breaks the terms, in any order."""


def threshold(default: float, meaning: str) -> Any:
    """Returns a dataclass field that holds a limit and says what it limits."""
    return field(default=default, metadata={"meaning": meaning})
