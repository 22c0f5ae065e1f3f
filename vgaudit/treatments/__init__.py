"""Treatments: what is done to a model against vanishing gradients, and its proof."""

from vgaudit.treatments.convert import Treated, treat
from vgaudit.treatments.proof import ConvertJob, Measurement, convert, summarise
from vgaudit.treatments.reading import has_recipe, load, named, open_model
from vgaudit.treatments.writing import Origin, save

__all__ = [
    "ConvertJob",
    "Measurement",
    "Origin",
    "Treated",
    "convert",
    "has_recipe",
    "load",
    "named",
    "open_model",
    "save",
    "summarise",
    "treat",
]
