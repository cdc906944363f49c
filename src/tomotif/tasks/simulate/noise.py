"""How far structures stand out from the noise: signal-to-noise ratios under given settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomotif.core import Structure
from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.fourier import Shape, frequency_grid, half_space_weights
from tomotif.tasks.simulate.settings import ImagingSettings, SubtomogramSettings, TomogramSettings
from tomotif.tasks.simulate.templates import chunks, render, templates
from tomotif.tasks.simulate.transfer import microscope, middle, noise_transfer

SIGNAL_BAND = 1 / 30
"""1/Å; where the signal of a macromolecule at this noise lies."""

_PROBES = 96
"""Poses over which a structure's signal is averaged to set the noise."""

_PROBES_AT = 32
"""The same at a given defocus, where there is less to average."""

_DEFOCUS_STEP = 1.0
"""µm between the defoci at which signals are measured."""


class SignalToNoise(NamedTuple):
    """What the noise does to one structure."""

    name: str
    snr: float  # over the box
    snr_band: float  # of frequencies 0 < k < 1/30 Å⁻¹
    noise_deviation: float


def signal_to_noise(
    structures: Sequence[Structure],
    settings: SubtomogramSettings | TomogramSettings,
    *,
    defocus_um: float | None = None,
) -> pd.DataFrame:
    """SNR of every structure under these settings, over the box and inside the signal's band.

    SNR is Var(noise-free particle alone) / Var(noise alone), both after CTF and wedge, over the cubic box, the signal
    averaged over orientations and defocus.

    Parameters
    ----------
    structures
        Those simulated.
    settings
        Of the simulation.
    defocus_um
        Defocus in µm of the tomogram; by default the range of the settings is averaged over.

    Returns
    -------
    DataFrame
        ``class``, ``snr``, ``snr_band`` (frequencies 0 < k < 1/30 Å⁻¹) and ``noise_deviation``, in the units of the
        noise-free density.
    """
    rows = noise_levels(structures, settings, defocus_um)
    return pd.DataFrame(rows).rename(columns={"name": "class"})


def noise_levels(
    structures: Sequence[Structure], settings: SubtomogramSettings | TomogramSettings, defocus_um: float | None = None
) -> list[SignalToNoise]:
    """As :func:`signal_to_noise`, one tuple a structure."""
    if settings.snr is None:
        return [SignalToNoise(s.name, math.inf, math.inf, 0.0) for s in structures]
    powers = [_signal_power_at(s, settings, defocus_um) for s in structures]
    if settings.snr_reference == "each":
        references = [power for power, _ in powers]
    else:
        named = [s for s in structures if s.name == settings.snr_reference]
        reference = named[0] if named else load_structure(settings.snr_reference)
        references = [_signal_power_at(reference, settings, defocus_um)[0]] * len(structures)
    share = _band_share(settings)
    return [
        SignalToNoise(
            s.name, settings.snr * power / ref, settings.snr * band / ref / share, math.sqrt(ref / settings.snr)
        )
        for s, (power, band), ref in zip(structures, powers, references, strict=True)
    ]


def work_px(settings: SubtomogramSettings | TomogramSettings) -> int:
    """Edge of the box that CTF and wedge are applied in: with surroundings, half as large again as what is kept."""
    alone = isinstance(settings, SubtomogramSettings) and settings.neighbours == 0
    return settings.box_px + (0 if alone else 2 * (settings.box_px // 4))


def _signal_power_at(
    structure: Structure, settings: SubtomogramSettings | TomogramSettings, defocus_um: float | None
) -> tuple[float, float]:
    """The signal's power at a defocus, interpolated between few that are kept for the next tomogram."""
    if defocus_um is None or not settings.ctf:
        return _signal_power(structure, settings, None)
    if isinstance(settings, TomogramSettings):  # one entry of the cache for all that image alike
        imaging = settings.model_dump(include=set(ImagingSettings.model_fields) - {"snr", "noise_decay"})
        settings = TomogramSettings(**imaging, box_px=settings.box_px)
    below = math.floor(defocus_um / _DEFOCUS_STEP) * _DEFOCUS_STEP
    share = (defocus_um - below) / _DEFOCUS_STEP
    low, high = (_signal_power(structure, settings, at) for at in (below, below + _DEFOCUS_STEP))
    return (1 - share) * low[0] + share * high[0], (1 - share) * low[1] + share * high[1]


@lru_cache(maxsize=1024)
def _signal_power(
    structure: Structure, settings: SubtomogramSettings | TomogramSettings, defocus_um: float | None
) -> tuple[float, float]:
    """Variance of a structure alone over its box, and the part of it inside the signal's band."""
    import torch

    rng = np.random.default_rng(0)  # the same poses always: the noise is part of the settings, not of the drawing
    box, ready = settings.box_px, templates([structure], settings)
    work = work_px(settings)
    shift = settings.max_shift_px if isinstance(settings, SubtomogramSettings) else 0.5
    probes = _PROBES if defocus_um is None else _PROBES_AT
    defocus = np.linspace(*settings.defocus_um, probes) if defocus_um is None else np.full(probes, defocus_um)
    optics, band = microscope(work, settings), torch.from_numpy(_band((box, box, box), settings.voxel_size))
    weights = torch.from_numpy(half_space_weights((box, box, box)))
    total = low = 0.0
    for part in chunks(probes, work):
        boxes = torch.zeros(len(part), work, work, work)
        which, offsets = np.zeros(len(part), dtype=np.int64), rng.uniform(-shift, shift, (len(part), 3))
        render(ready, which, random_rotations(len(part), rng), offsets, np.arange(len(part)), boxes)
        seen = middle(optics.image(boxes, defocus[part]), box)
        power = torch.fft.rfftn(seen, dim=(1, 2, 3)).abs().square().sum(dim=0) * weights
        total += float(power.sum() - power[0, 0, 0])
        low += float(power[band].sum())
    scale = probes * float(box) ** 6
    return total / scale, low / scale


def _band(shape: Shape, voxel_size: float) -> NDArray[np.bool_]:
    """Coefficients of ``rfftn`` inside the signal's band, 0 < k < 1/30 Å⁻¹."""
    frequency = frequency_grid(shape, voxel_size)
    return (frequency > 0) & (frequency < SIGNAL_BAND)


def _band_share(settings: SubtomogramSettings | TomogramSettings) -> float:
    """Share of the noise's variance inside the signal's band."""
    shape = (settings.box_px,) * 3
    power = noise_transfer(shape, settings) ** 2 * half_space_weights(shape)
    return float(power[_band(shape, settings.voxel_size)].sum() / power.sum())
