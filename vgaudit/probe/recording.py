"""What watching one forward pass leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Size, dtype
from torch.autograd.graph import Node

from vgaudit.flow import Histogram, Source
from vgaudit.probe.activations import Activation
from vgaudit.probe.lags import Lags
from vgaudit.probe.observe import Observation


@dataclass(slots=True)
class Site:
    """One call of an activation.

    Attributes:
        key: unique and the same in every pass: ``block.2 relu#1``.
        path: the module it is called in. type: class or function name.
        kind: canonical name of the activation.
        source: the user's line, in the structure pass.
        node: the autograd node that it made; None without a gradient.
        order: position among the activation calls of the pass.
        own: the module is the activation, so its path names the call.
        entry: the autograd node that made its input.
        after: the last autograd node made before, for its place in the order.
    """

    key: str
    path: str
    type: str
    kind: str
    source: Source | None
    node: Node | None
    order: int
    own: bool = False
    entry: Node | None = None
    after: Node | None = None


@dataclass(slots=True)
class Call:
    """One call of any torch function that made an autograd node."""

    path: str
    function: str
    source: Source | None


@dataclass(slots=True)
class Visit:
    """One call of an activation, as a later pass will meet it again.

    Attributes:
        kind: canonical name of the activation.
        key: of the call; empty if it is not measured.
        axis: dimension that runs over units, None if unknown.
        place: index of the node that it makes in the graph, −1 without one.
    """

    kind: str
    key: str
    axis: int | None
    place: int = -1


@dataclass(slots=True)
class Habits:
    """What the structure pass learned and later passes need.

    Attributes:
        ignored: activation calls on tensors that do not depend on the data.
        units: modules that are activations of the user's own, by path.
    """

    ignored: set[str] = field(default_factory=set)
    units: dict[str, Activation] = field(default_factory=dict)

    @classmethod
    def joined(cls, all_habits: Iterable[Habits]) -> Habits:
        """Returns what was learned from several graphs of one model."""
        joined = cls()
        for habits in all_habits:
            joined.ignored |= habits.ignored
            joined.units |= habits.units
        return joined


@dataclass(slots=True)
class Recording:
    """What one forward pass showed.

    Attributes:
        start: number of the batch's first sample in the scan.
        sites: activation calls by key, in order.
        observations: their statistics, still on the device.
        histograms: of their inputs, by key, where asked for.
        visits: activation calls in order, with the nodes that they made (structure
            pass).
        unmeasured: place → why it could not be measured.
        calls: node → the call that made it (structure pass).
        latest: the last node that was made (structure pass).
        entries: nodes at which data meets the first tensor that needs a
            gradient (structure pass).
        calls_of: module path → number of calls.
        used: ids of the parameters that were arguments of a call (structure pass).
        last_inputs: path → shapes and types of its last inputs, for error messages.
        fused: modules whose fused recurrent kernel was run again step by step.
        recurrences: what that showed, by layer and direction.
        hooked: nodes with hooks of the user's own → what a further backward pass
            would do (structure pass).
    """

    start: int = 0
    sites: dict[str, Site] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    visits: list[tuple[Visit, Node | None]] = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)
    calls: dict[Node, Call] = field(default_factory=dict)
    latest: Node | None = None
    entries: list[Node] = field(default_factory=list)
    calls_of: Counter[str] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)
    last_inputs: dict[str, list[tuple[Size, dtype]]] = field(default_factory=dict)
    fused: set[str] = field(default_factory=set)
    recurrences: dict[str, Lags] = field(default_factory=dict)
    hooked: dict[Node, str] = field(default_factory=dict)

    def forget_graph(self) -> None:
        """Lets go of the autograd graph, which keeps a whole pass in memory."""
        self.calls.clear()
        self.visits.clear()
        self.entries.clear()
        self.hooked.clear()
        self.latest = None
        for site in self.sites.values():
            site.node = site.entry = site.after = None
