"""Opening a model whose weights are spread over ranks, as often as a scan needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vgaudit.distributed.sharding import forget_parameters, shard
from vgaudit.errors import BadConfig
from vgaudit.job import ScanJob
from vgaudit.loading.in_parts import open_in_parts
from vgaudit.probe.spread import Sharing
from vgaudit.treatments import has_recipe, named, open_model

if TYPE_CHECKING:
    from vgaudit.distributed.group import Group


class Spreading:
    """The model of one scan, each rank with its part of every weight.

    Weights in safetensors are read by each rank in part; what cannot be is read whole
    by each rank, which then keeps its part.

    Args:
        job: the scan.
        group: the ranks; None for one process, which cannot do it.

    Attributes:
        loaded: the model, to open the data by.

    Raises:
        BadConfig: there is one process, or the scan needs the whole model.
        VgauditError: the model cannot be loaded.
    """

    def __init__(self, job: ScanJob, group: Group | None) -> None:
        if group is None:
            raise BadConfig(
                "--parallel fsdp spreads a model over several processes, and there is "
                "one",
                hint="start it with torchrun --nproc-per-node N -m vgaudit scan …",
            )
        if job.probe.deep:
            raise BadConfig(
                "--deep needs the whole model, and --parallel fsdp spreads it",
                hint="leave one of them out",
            )
        self._job, self._group = job, group
        self._device = torch.device(job.probe.device)
        recipe = has_recipe(job.spec)
        self._parts = None if recipe else open_in_parts(job.spec, job.load)
        if self._parts is None:
            self.loaded = open_model(job.spec, job.load)
        else:
            self.loaded = named(self._parts.loaded, job.load)
        self._first: nn.Module | None = None

    def nonfinite(self) -> tuple[str, ...]:
        """Returns the weights that hold NaN or infinity. Collective.

        Raises:
            VgauditError: the weights cannot be read.
        """
        if self._parts is None:
            return self.loaded.target.nonfinite_weights
        with self._group.failing():
            self._first = model = self.fresh(None)
        everywhere = self._group.everywhere(self._parts.nonfinite(model))
        found = {name for names in everywhere for name in names}
        return tuple(name for name, _ in model.named_parameters() if name in found)

    def sharing(self) -> Sharing:
        """Returns who takes part in the scan; ``loaded`` lets go of its weights."""
        forget_parameters(self.loaded.module)
        return Sharing(self._group, self.fresh)

    def fresh(self, dtype: torch.dtype | None) -> nn.Module:
        """Returns the model anew in a type, None for its own. Collective."""
        if dtype is None and self._first is not None:
            model, self._first = self._first, None
            return model
        parts = self._parts
        if parts is None:
            model = open_model(self._job.spec, self._job.load).module.to(dtype)
        else:
            model = parts.empty(dtype)
        if self._job.probe.unfreeze:
            model.requires_grad_(True)
        shard(model, self._device, self._group.size, scalars=True)
        return model if parts is None else parts.fill(model, self._device)
