"""The six nouns that carry all data, and what everything else agrees on: geometry, missing wedge, settings, errors."""

from tomotif.core.errors import (
    InputError,
    OutputError,
    RunConflictError,
    TomotifError,
    UnknownNameError,
)
from tomotif.core.labels import Labels
from tomotif.core.missing_wedge import MissingWedge
from tomotif.core.particles import Particles
from tomotif.core.settings import Settings
from tomotif.core.structure import Structure
from tomotif.core.subtomograms import Subtomograms
from tomotif.core.tomogram import Contrast, Tomogram
from tomotif.core.volume import Volume

__all__ = [
    "Contrast",
    "InputError",
    "Labels",
    "MissingWedge",
    "OutputError",
    "Particles",
    "RunConflictError",
    "Settings",
    "Structure",
    "Subtomograms",
    "Tomogram",
    "TomotifError",
    "UnknownNameError",
    "Volume",
]
