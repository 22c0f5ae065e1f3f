"""Relaxed activation identity (RAI): training in stages that meet in targets.

``find_cuts`` says where a model can be cut, ``Sweep`` trains it in mini-batches with
any optimizer, ``train_full_batch`` runs the whole recipe on a small data set. The
model is the ordinary model throughout: nothing is added to it.
"""

from vgaudit.training.rai.align import align, refusal
from vgaudit.training.rai.cuts import Cuts, find_cuts
from vgaudit.training.rai.gap import Gap, measure_gap
from vgaudit.training.rai.method import ENTRY
from vgaudit.training.rai.readout import refit_readout
from vgaudit.training.rai.recipe import Outcome, Recipe, train_full_batch
from vgaudit.training.rai.relaxed import Hidden, Relaxation
from vgaudit.training.rai.sweep import Sweep

__all__ = [
    "ENTRY",
    "Cuts",
    "Gap",
    "Hidden",
    "Outcome",
    "Recipe",
    "Relaxation",
    "Sweep",
    "align",
    "find_cuts",
    "measure_gap",
    "refit_readout",
    "refusal",
    "train_full_batch",
]
