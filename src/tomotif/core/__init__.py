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
from tomotif.core.particles import BACKGROUND, Particles
from tomotif.core.progress import Progress
from tomotif.core.settings import Settings
from tomotif.core.structure import Structure
from tomotif.core.subtomograms import RESIDUALS, Subtomograms
from tomotif.core.tilt_series import TiltSeries
from tomotif.core.tomogram import Contrast, Tomogram, tomograms_of
from tomotif.core.volume import Volume

__all__ = [
    "BACKGROUND",
    "RESIDUALS",
    "Contrast",
    "InputError",
    "Labels",
    "MissingWedge",
    "OutputError",
    "Particles",
    "Progress",
    "RunConflictError",
    "Settings",
    "Structure",
    "Subtomograms",
    "TiltSeries",
    "Tomogram",
    "TomotifError",
    "UnknownNameError",
    "Volume",
    "tomograms_of",
]
