"""A scan whose model is scored too: on the same batches, after they are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vgaudit.data import Batches, Loss, settled
from vgaudit.data.batch import Batch
from vgaudit.errors import VgauditError
from vgaudit.flow import Audit
from vgaudit.job import ScanJob
from vgaudit.measure import Progress, measure
from vgaudit.plain import visible
from vgaudit.probe.forward import select
from vgaudit.probe.placing import own_dtype, parse_device
from vgaudit.probe.tensors import cast
from vgaudit.scores import Score, Scored
from vgaudit.training.metrics import metric_of, score

if TYPE_CHECKING:
    from vgaudit.distributed.group import Group


def measure_and_score(
    job: ScanJob, progress: Progress | None = None, group: Group | None = None
) -> Scored:
    """Returns the measurement of a job, and how good its model is on the batches.

    A model is scored in eval mode where its data has labels; not by several ranks, of
    which each has batches of its own. What fails then is told, and the scan stands.

    Args:
        job: what to scan, on what, and how.
        progress: as in ``measure``.
        group: the ranks that share the scan.

    Raises:
        VgauditError: as in ``measure``.
    """
    found: list[Score | str] = []
    place = job.probe.device

    def then(model: nn.Module, batches: Batches, loss: Loss | None) -> None:
        if job.data.data is None or loss is None or not batches.labelled:
            return
        if progress is not None:
            progress("scoring")
        found.append(_scored(_Chosen(model, job.probe.output), batches, loss, place))

    audit = measure(job, progress, group, then=None if group is not None else then)
    return _answer(audit, found)


class _Chosen(nn.Module):
    """A model of which one output counts.

    Args:
        model: stays what it is. output: index or key; None for all.
    """

    def __init__(self, model: nn.Module, output: str | None) -> None:
        super().__init__()
        self.model, self._output = model, output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the output that counts."""
        return select(self.model(*args, **kwargs), self._output)


def _answer(audit: Audit, found: list[Score | str]) -> Scored:
    answer = found[0] if found else None
    if isinstance(answer, str):
        return Scored(audit=audit, unscored=answer)
    return Scored(audit=audit, score=answer)


def _scored(
    model: nn.Module, batches: Iterable[Batch], loss: Loss, place: str
) -> Score | str:
    """Returns the score of a model, or why there is none."""
    try:
        device = parse_device(place)
        fed = _fed(batches, own_dtype(model), device)
        scores = score(model.to(device), fed, loss, device)
    except VgauditError as error:
        return error.message
    except Exception as error:
        # The user's model, or a loss that does not fit what it returns in eval mode.
        return f"{type(error).__name__}: {visible(str(error))}"
    if scores is None:
        return "there is no sample"
    return Score(
        metric=metric_of(loss) if scores.metric is not None else "",
        value=scores.metric,
        loss=scores.loss,
        loss_name=settled(loss).name,
        samples=scores.samples,
        on="those of the scan, in eval mode",
    )


def _fed(
    batches: Iterable[Batch], dtype: torch.dtype, device: torch.device
) -> Iterator[Batch]:
    """Yields batches in the type that the model takes, as a scan feeds them."""
    wanted = None if dtype == torch.float32 else dtype
    for batch in batches:
        args, kwargs, labels = cast(
            (batch.args, batch.kwargs, batch.labels), device=device, dtype=wanted
        )
        yield dataclasses.replace(batch, args=args, kwargs=kwargs, labels=labels)
