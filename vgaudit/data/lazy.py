"""Lazy modules: a first forward pass gives them their shapes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vgaudit.data.batches import Batches
from vgaudit.data.seeding import private_random
from vgaudit.errors import CannotRun
from vgaudit.plain import visible


def initialise(model: nn.Module, batches: Batches, *, seed: int) -> Batches:
    """Runs ``model`` once on the first batch if it has lazy modules.

    They draw their weights from ``seed``. Norms keep their statistics: the run
    is in eval mode, and the modes are put back.

    Raises:
        CannotRun: the run fails.
    """
    lazy = [name for name, p in model.named_parameters() if is_lazy(p)]
    if not lazy:
        return batches
    batch = next(iter(batches))
    modes = [(module, module.training) for module in model.modules()]
    try:
        with private_random(seed, "lazy"), torch.no_grad():
            model.eval()(*batch.args, **batch.kwargs)
    except Exception as error:
        raise CannotRun(
            f"the lazy module of {visible(lazy[0])} cannot be initialised: "
            f"{visible(str(error))}",
            hint="run the model once on a real batch before saving it",
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    return batches.with_note(
        f"{len(lazy)} lazy parameters were initialised by a first forward pass"
    )
