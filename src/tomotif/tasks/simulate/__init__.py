"""Simulated training data, with every truth known.

Two paths through one physics. The fast path (``subtomograms``) makes one box a particle: structure → density →
Haar-uniform orientation and shift → transfer of microscope and tilt series in Fourier space + noise →
``Subtomograms``. The full path (``tomogram``) makes cells: a ``specimen`` of complexes, membranes, filaments and gold →
tilt series with CTF, radiation damage and noise in the images → weighted back-projection → ``Tomogram`` +
``Particles`` + ``Labels`` + ``TiltSeries``.

The method is that of Pei et al. 2016, BMC Bioinformatics 17:405, and Xu et al. 2017, Bioinformatics 33:i13.

Not here: multiple scattering, charging and beam-induced motion, a defocus that changes within an image, other cameras
than counting ones, and patterns of ice.
"""

from tomotif.tasks.simulate.noise import SIGNAL_BAND, SignalToNoise, signal_to_noise
from tomotif.tasks.simulate.settings import (
    FilamentSettings,
    GoldSettings,
    ImagingSettings,
    MembraneSettings,
    SubtomogramSettings,
    TomogramSettings,
)
from tomotif.tasks.simulate.specimen import Specimen, build_specimen, picking_radius
from tomotif.tasks.simulate.subtomograms import simulate_subtomograms
from tomotif.tasks.simulate.tomogram import SimulatedTomogram, simulate_tomogram

__all__ = [
    "SIGNAL_BAND",
    "FilamentSettings",
    "GoldSettings",
    "ImagingSettings",
    "MembraneSettings",
    "SignalToNoise",
    "SimulatedTomogram",
    "Specimen",
    "SubtomogramSettings",
    "TomogramSettings",
    "build_specimen",
    "picking_radius",
    "signal_to_noise",
    "simulate_subtomograms",
    "simulate_tomogram",
]
