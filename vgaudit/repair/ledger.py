"""What is finished: one JSON file, and the best weights of each arm beside it."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.fixing import Attempt, Plan, Trial
from vgaudit.plain import to_json, visible
from vgaudit.training.checkpoint import differences
from vgaudit.treatments.writing import replacing
from vgaudit.typed import typed

NAME = "fix.json"
SCHEMA = 3


@dataclass(slots=True, kw_only=True)
class Finished:
    """What the file holds.

    Attributes:
        schema: of the file.
        identity: what must be the same to resume.
        trial: of the model as it came, as far as it is; None where none is made.
        plan: of the repair; None before it is made.
        attempts: finished trainings, in order.
    """

    schema: int = SCHEMA
    identity: dict[str, str]
    trial: Trial | None = None
    plan: Plan | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """Finished trainings, in memory and where there is a folder on disk too.

    Attributes:
        folder: exists; None keeps everything in memory.
    """

    folder: Path | None
    _weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _begun: Finished | None = None

    def begun(self, identity: dict[str, str], *, resume: bool) -> Finished:
        """Returns what is finished, the same object each time; nothing at first.

        Args:
            identity: of the repair.
            resume: from what was written.

        Raises:
            BadConfig: that belongs to another repair.
            CannotLoad: the file is damaged.
        """
        if self._begun is None:
            found = self.read(identity) if resume else None
            self._begun = found or Finished(identity=identity)
        return self._begun

    def read(self, identity: dict[str, str]) -> Finished | None:
        """Returns what is finished; None where nothing is.

        Raises:
            BadConfig: it belongs to another repair.
            CannotLoad: the file is damaged.
        """
        if self.folder is None or not self.holds():
            return None
        path = self.folder / NAME
        try:
            found = typed(Finished, json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise CannotLoad(
                f"{visible(str(path))} is damaged",
                hint="leave out --resume, and give --force to begin anew",
            ) from error
        changed = differences(found.identity, identity)
        if changed or found.schema != SCHEMA:
            raise BadConfig(
                f"{visible(str(path))} is of another repair: {'; '.join(changed)}",
                hint="resume with the command that began it, or begin anew by --force",
            )
        return found

    def holds(self) -> bool:
        """Tells whether something is finished."""
        return self.folder is not None and (self.folder / NAME).is_file()

    def write(self, finished: Finished) -> None:
        """Writes the file, whole or not at all.

        Raises:
            CannotWrite: the system refuses.
        """
        if self.folder is None:
            return
        with replacing(self.folder / NAME) as part:
            part.write_text(to_json(finished), encoding="ascii")

    def keep(self, arm: str, weights: dict[str, Tensor]) -> None:
        """Keeps the weights of an arm in place of those before.

        Raises:
            CannotWrite: the system refuses.
        """
        if self.folder is None:
            self._weights[arm] = weights
            return
        with replacing(self._place(arm)) as part:
            torch.save(weights, part)

    def weights(self, arm: str) -> dict[str, Tensor]:
        """Returns the weights that were kept of an arm.

        Raises:
            CannotLoad: they are missing or damaged.
        """
        if self.folder is None:
            return self._weights[arm]
        path = self._place(arm)
        try:
            found: dict[str, Tensor] = torch.load(path, weights_only=True)
        except Exception as error:
            raise CannotLoad(
                f"the weights of {visible(arm)} in {visible(str(path))} cannot be read",
                hint="begin anew by --force",
            ) from error
        return found

    def clear(self) -> None:
        """Removes what was written."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            for path in [self.folder / NAME, *self.folder.glob("arm-*.pt")]:
                path.unlink(missing_ok=True)

    def _place(self, arm: str) -> Path:
        assert self.folder is not None
        return self.folder / f"arm-{re.sub('[^a-z0-9.]+', '-', arm)}.pt"
