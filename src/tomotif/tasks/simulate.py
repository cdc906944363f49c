"""Simulated training data.

Flow: ``Structure`` → density → Haar-uniform orientation and shift → |CTF| × missing wedge + noise → ``Subtomograms``
(the fast path, one box a particle) or ``Tomogram`` + ``Particles`` + ``Labels`` (many complexes in one volume).

The method is that of Pei et al. 2016, BMC Bioinformatics 17:405, and Xu et al. 2017, Bioinformatics 33:i13, with the
contrast transfer function's magnitude, since projections are phase-flipped before reconstruction.

Not here: tilt series and back-projection, membranes, gold, and noise in the projections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.spatial.transform import Rotation

from tomotif.core import (
    BACKGROUND,
    Contrast,
    InputError,
    Labels,
    MissingWedge,
    Particles,
    Settings,
    Structure,
    Subtomograms,
    Tomogram,
    Volume,
)
from tomotif.core.geometry import random_rotations
from tomotif.core.missing_wedge import TiltAxis
from tomotif.core.settings import FloatOrNone
from tomotif.io.environment import cpu_count
from tomotif.io.structure import load_structure
from tomotif.ops.density import envelope_threshold, envelope_volume, structure_density
from tomotif.ops.fourier import Shape, frequency_grid, half_space_weights, undo_trilinear
from tomotif.ops.packing import Neighbours, free_place, outermost_points, overlap, surround

if TYPE_CHECKING:  # torch takes 1.5 s to import, which whoever reads the settings alone should not wait for
    from torch import Tensor

SIGNAL_BAND = 1 / 30
"""1/Å; where the signal of a macromolecule at this noise lies."""

_SUPERSAMPLING = 2
_CHUNK_VOXELS = 1 << 20
"""Voxels worked on at a time: few enough to stay in the processor's cache."""

_PROBES = 96
"""Poses over which a structure's signal is averaged to set the noise."""


class ImagingSettings(Settings):
    """How the microscope and the reconstruction see a structure."""

    voxel_size: float = Field(default=12.0, gt=0)
    """Edge of a voxel in Å."""

    resolution: float = Field(default=25.0, gt=0)
    """Resolution of the noise-free density in Å: its Fourier amplitude falls to 1/e at 1 / resolution."""

    tilt_range: tuple[float, float] = (-60.0, 60.0)
    """Measured tilt range in degrees."""

    tilt_axis: TiltAxis = "y"
    """Axis of the tilt series."""

    defocus_um: tuple[float, float] = (2.0, 6.0)
    """Range of the defocus in µm, above 0 is underfocus; each box or tomogram draws its own."""

    ctf: bool = True
    """Whether the contrast transfer function (its magnitude) is applied."""

    voltage_kv: float = Field(default=300.0, gt=0)
    """Acceleration voltage in kV."""

    spherical_aberration_mm: float = Field(default=2.7, ge=0)
    """Spherical aberration in mm."""

    amplitude_contrast: float = Field(default=0.07, ge=0, lt=1)
    """Amplitude contrast as a fraction."""

    snr: FloatOrNone = Field(default=0.1, gt=0)
    """Signal-to-noise ratio: variance of the particle alone over variance of the noise alone, both after CTF and wedge,
    over the cubic box; "none" for no noise."""

    noise_decay: float = Field(default=0.0, ge=0)
    """Colour of the noise: its amplitude falls as exp(-(k · noise_decay)²), in Å; 0 is white."""

    @model_validator(mode="after")
    def _ordered(self) -> ImagingSettings:
        MissingWedge(*self.tilt_range, self.tilt_axis)
        if self.defocus_um[0] > self.defocus_um[1]:
            raise ValueError(f"expected a defocus range min <= max in µm, got {self.defocus_um}")
        return self

    @property
    def missing_wedge(self) -> MissingWedge:
        """The measured tilt range."""
        return MissingWedge(*self.tilt_range, self.tilt_axis)


class SubtomogramSettings(ImagingSettings):
    """Boxes around single particles."""

    count: int = Field(default=100, gt=0)
    """Boxes of each structure."""

    background: int = Field(default=0, ge=0)
    """Boxes without a particle in the middle, of class "background"."""

    box_px: int = Field(default=32, ge=8)
    """Edge of a box in voxels."""

    max_shift_px: float = Field(default=2.0, ge=0)
    """The particle lies off the centre by up to this many voxels along each axis."""

    neighbours: int = Field(default=0, ge=0, le=32)
    """Other particles around the one in the middle."""

    neighbour_gap: tuple[float, float] = (0.0, 40.0)
    """Range of the distance in Å between the surfaces of a neighbour and the particle in the middle."""

    snr_reference: str = "each"
    """Whose signal the SNR is about: "each" for every structure its own, else one structure, such as "1bxn"."""


class TomogramSettings(ImagingSettings):
    """A volume full of complexes."""

    shape: tuple[int, int, int] = (128, 256, 256)
    """Shape zyx in voxels."""

    occupancy: float = Field(default=0.05, gt=0, lt=1)
    """Fraction of the volume inside molecular envelopes; cytoplasm has 0.15 to 0.3."""

    abundances: tuple[float, ...] | None = None
    """Relative number of each structure; by default all are equally many."""

    counts: tuple[int, ...] | None = None
    """Number of each structure, instead of an occupancy; a single number serves them all."""

    gap_px: int = Field(default=0, ge=0)
    """Voxels left free between molecular envelopes."""

    box_px: int = Field(default=32, ge=8)
    """Edge in voxels of the cubic box that the SNR is about."""

    snr_reference: str = "1bxn"
    """The structure whose SNR is set; the others scatter more or less."""

    contrast: Contrast = "dark"
    """Whether dense matter is dark, as in raw tomograms, or bright."""


@dataclass(frozen=True, eq=False)
class SimulatedTomogram:
    """A tomogram and the truth about it.

    Parameters
    ----------
    tomogram
        The volume with its tilt range, in memory.
    particles
        What lies in it: position of the centre of mass, orientation, and the columns ``class``, ``radius`` (see
        :func:`picking_radius`), ``mass_kda`` and ``structure`` (its source).
    classes
        Class of every voxel inside a molecular envelope, with the classes' names.
    instances
        Label i is row i - 1 of the particles.
    defocus_um
        The tomogram's defocus in µm.
    noise_free
        The volume before the noise was added, in the tomogram's contrast.
    """

    tomogram: Tomogram
    particles: Particles
    classes: Labels
    instances: Labels
    defocus_um: float
    noise_free: NDArray[np.float32]

    @property
    def occupancy(self) -> float:
        """Fraction of the volume inside molecular envelopes."""
        return float(np.mean(self.instances.data > 0))


def picking_radius(structure: Structure) -> float:
    """Radius in Å of the solid ball with the structure's radius of gyration, √(5/3) Rg.

    Unlike the farthest atom's distance it does not grow with a loose tail, and unlike the radius of the ball of equal
    volume it grows for hollow and elongated complexes; so "within half a radius" means the same for all of them.
    """
    return math.sqrt(5 / 3) * structure.radius_of_gyration


class _Template(NamedTuple):
    """A structure made ready to be rotated: a finely sampled map, sharpened against the interpolation to come."""

    structure: Structure
    fine: Tensor  # (1, s, s, s)
    size: int  # edge in output voxels of the stamp that holds the structure in any orientation
    threshold: float  # the density at the molecular envelope

    def stamps(self, rotations: Rotation, shifts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Rotated copies (n, size, size, size), shifted by fractions of an output voxel."""
        from tomotif.ops.rotate import sample_rotated

        turned = sample_rotated(self.fine, rotations, shifts, size=self.size, supersampling=_SUPERSAMPLING)
        return turned.numpy()


@lru_cache(maxsize=64)
def _template(structure: Structure, voxel: float, resolution: float) -> _Template:
    import torch

    size = 2 * math.ceil((structure.radius + resolution / 2) / voxel + 0.5) + 1
    edge = size * _SUPERSAMPLING
    density = structure_density(
        structure,
        voxel_size=voxel / _SUPERSAMPLING,
        resolution=resolution,
        shape=(edge, edge, edge),
        band_limit=0.5 / voxel,
    )
    threshold = envelope_threshold(density, envelope_volume(structure) / (voxel / _SUPERSAMPLING) ** 3)
    return _Template(structure, torch.from_numpy(undo_trilinear(density))[None], size, threshold)


def _chunks(rows: int | NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Split rows into parts whose boxes of this size fit the processor's cache."""
    index = np.arange(rows) if isinstance(rows, int) else rows
    return np.array_split(index, math.ceil(len(index) / max(1, _CHUNK_VOXELS // size**3))) if len(index) else []


def _templates(structures: Sequence[Structure], settings: ImagingSettings) -> list[_Template]:
    return [_template(s, settings.voxel_size, settings.resolution) for s in structures]


# ---------------------------------------------------------------------------------------------- imaging


class _Microscope(NamedTuple):
    """|CTF| × wedge on cubic boxes; the CTF is computed once for every distinct radius on the grid."""

    settings: ImagingSettings
    frequency: NDArray[np.float32]  # (m,) 1/Å
    radii: Tensor  # (w, w, w // 2 + 1): which of the m frequencies each coefficient has
    wedge: Tensor  # (w, w, w // 2 + 1)

    def image(self, boxes: Tensor, defocus_um: NDArray[np.floating]) -> Tensor:
        """Boxes (n, w, w, w) as the microscope and the reconstruction show them, each at its own defocus."""
        import torch

        radial = torch.from_numpy(_ctf_magnitude(self.frequency, self.settings, defocus_um[:, None]))
        spectrum = torch.fft.rfftn(boxes, dim=(1, 2, 3))
        spectrum *= radial.index_select(1, self.radii.flatten()).view(len(boxes), *self.radii.shape) * self.wedge
        return torch.fft.irfftn(spectrum, s=boxes.shape[1:], dim=(1, 2, 3))


def _microscope(size: int, settings: ImagingSettings) -> _Microscope:
    import torch

    shape = size, size, size
    radius = np.round((frequency_grid(shape).astype(np.float64) * size) ** 2).astype(np.int64)
    frequency = np.sqrt(np.arange(radius.max() + 1)) / (size * settings.voxel_size)
    wedge = settings.missing_wedge.mask(shape).astype(np.float32)
    return _Microscope(settings, frequency.astype(np.float32), torch.from_numpy(radius), torch.from_numpy(wedge))


def _ctf_magnitude(
    frequency: NDArray[np.float32], settings: ImagingSettings, defocus_um: float | NDArray[np.floating]
) -> NDArray[np.float32]:
    from tomotif.ops.ctf import ctf

    if not settings.ctf:
        return np.ones(np.broadcast(frequency, defocus_um).shape, dtype=np.float32)
    return np.abs(
        ctf(
            frequency,
            defocus_um,
            voltage_kv=settings.voltage_kv,
            spherical_aberration_mm=settings.spherical_aberration_mm,
            amplitude_contrast=settings.amplitude_contrast,
        )
    )


def _noise_transfer(shape: Shape, settings: ImagingSettings) -> NDArray[np.float32]:
    """What white noise of variance 1 is multiplied with on the grid of ``rfftn`` to keep variance 1: wedge × colour."""
    transfer = settings.missing_wedge.mask(shape).astype(np.float32)
    if settings.noise_decay:
        transfer *= np.exp(-((frequency_grid(shape, settings.voxel_size) * settings.noise_decay) ** 2))
    power = np.sum(transfer**2 * half_space_weights(shape), dtype=np.float64) / math.prod(shape)
    return transfer / np.float32(math.sqrt(power))


def _render(
    templates: Sequence[_Template],
    which: NDArray[np.int64],
    rotations: Rotation,
    offsets_px: NDArray[np.float64],
    owner: NDArray[np.int64],
    boxes: Tensor,
) -> None:
    """Add turned copies to boxes (n, w, w, w), each to its owner's, at an offset in voxels from the centre."""
    volume = boxes.numpy()
    size = volume.shape[-1]
    whole = np.round(offsets_px).astype(int)
    for kind in np.unique(which[which >= 0]):
        template = templates[kind]
        near = np.all(np.abs(whole) < (size + template.size) // 2, axis=1)
        rows = np.flatnonzero((which == kind) & near)
        for part in _chunks(rows, template.size):
            stamps = template.stamps(rotations[part], (offsets_px - whole)[part])
            for row, stamp in zip(part, stamps, strict=True):
                inside, kept = overlap((size, size, size), template.size, whole[row] + size // 2)
                volume[(owner[row], *inside)] += stamp[kept]


# ---------------------------------------------------------------------------------------------- signal and noise


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
    rows = _signal_to_noise(structures, settings, defocus_um)
    return pd.DataFrame(rows).rename(columns={"name": "class"})


def _signal_to_noise(
    structures: Sequence[Structure], settings: SubtomogramSettings | TomogramSettings, defocus_um: float | None = None
) -> list[SignalToNoise]:
    if settings.snr is None:
        return [SignalToNoise(s.name, math.inf, math.inf, 0.0) for s in structures]
    powers = [_signal_power(s, settings, defocus_um) for s in structures]
    if settings.snr_reference == "each":
        references = [power for power, _ in powers]
    else:
        named = [s for s in structures if s.name == settings.snr_reference]
        reference = named[0] if named else load_structure(settings.snr_reference)
        references = [_signal_power(reference, settings, defocus_um)[0]] * len(structures)
    share = _band_share(settings)
    return [
        SignalToNoise(
            s.name, settings.snr * power / ref, settings.snr * band / ref / share, math.sqrt(ref / settings.snr)
        )
        for s, (power, band), ref in zip(structures, powers, references, strict=True)
    ]


def _work_px(settings: SubtomogramSettings | TomogramSettings) -> int:
    """Edge of the box that CTF and wedge are applied in: with surroundings, half as large again as what is kept."""
    alone = isinstance(settings, SubtomogramSettings) and settings.neighbours == 0
    return settings.box_px + (0 if alone else 2 * (settings.box_px // 4))


@lru_cache(maxsize=256)
def _signal_power(
    structure: Structure, settings: SubtomogramSettings | TomogramSettings, defocus_um: float | None
) -> tuple[float, float]:
    """Variance of a structure alone over its box, and the part of it inside the signal's band."""
    import torch

    rng = np.random.default_rng(0)  # the same poses always: the noise is part of the settings, not of the drawing
    box, templates = settings.box_px, _templates([structure], settings)
    work = _work_px(settings)
    shift = settings.max_shift_px if isinstance(settings, SubtomogramSettings) else 0.5
    defocus = np.linspace(*settings.defocus_um, _PROBES) if defocus_um is None else np.full(_PROBES, defocus_um)
    microscope, band = _microscope(work, settings), torch.from_numpy(_band((box, box, box), settings.voxel_size))
    weights = torch.from_numpy(half_space_weights((box, box, box)))
    total = low = 0.0
    for part in _chunks(_PROBES, work):
        boxes = torch.zeros(len(part), work, work, work)
        which, offsets = np.zeros(len(part), dtype=np.int64), rng.uniform(-shift, shift, (len(part), 3))
        _render(templates, which, random_rotations(len(part), rng), offsets, np.arange(len(part)), boxes)
        seen = _middle(microscope.image(boxes, defocus[part]), box)
        power = torch.fft.rfftn(seen, dim=(1, 2, 3)).abs().square().sum(dim=0) * weights
        total += float(power.sum() - power[0, 0, 0])
        low += float(power[band].sum())
    return total / (_PROBES * float(box) ** 6), low / (_PROBES * float(box) ** 6)


def _band(shape: Shape, voxel_size: float) -> NDArray[np.bool_]:
    """Coefficients of ``rfftn`` inside the signal's band, 0 < k < 1/30 Å⁻¹."""
    frequency = frequency_grid(shape, voxel_size)
    return (frequency > 0) & (frequency < SIGNAL_BAND)


def _band_share(settings: SubtomogramSettings | TomogramSettings) -> float:
    """Share of the noise's variance inside the signal's band."""
    shape = (settings.box_px,) * 3
    power = _noise_transfer(shape, settings) ** 2 * half_space_weights(shape)
    return float(power[_band(shape, settings.voxel_size)].sum() / power.sum())


def _middle(boxes: Tensor, size: int) -> Tensor:
    """The boxes of this size in the middle of larger ones; the centre stays the centre."""
    first = boxes.shape[-1] // 2 - size // 2
    kept = slice(first, first + size)
    return boxes[:, kept, kept, kept]


# ---------------------------------------------------------------------------------------------- single boxes


class _Scene(NamedTuple):
    """What is in n boxes, before anything is rendered."""

    which: NDArray[np.int64]  # index of the structure, -1 for background
    rotations: Rotation
    offsets: NDArray[np.float64]  # Å from the centre
    defocus_um: NDArray[np.float64]
    neighbours: Neighbours


def simulate_subtomograms(
    structures: Sequence[Structure],
    settings: SubtomogramSettings,
    rng: np.random.Generator,
    *,
    name: str = "simulated",
    stack: NDArray[np.float16] | None = None,
) -> Subtomograms:
    """Subtomograms of single particles, fast: CTF, wedge and noise are applied to each box in Fourier space.

    The box is periodic; against a box cut from a large tomogram the noise-free correlation stays above 0.98. With
    neighbours the signal is made in a box half as large again. The noise fills the measured wedge and its deviation
    is that of :func:`signal_to_noise`.

    Parameters
    ----------
    structures
        One class each, named by the structure.
    settings
        Microscope, box, shifts, neighbours and noise.
    rng
        Decides everything: the same state gives the same bytes.
    name
        Tomogram name of all the boxes.
    stack
        Array to fill, shape (n, box_px, box_px, box_px) with n = count · structures + background; made when None.

    Returns
    -------
    Subtomograms
        Bright, z-scored boxes in random order of classes. Columns ``class``, ``mean``, ``deviation``,
        ``defocus_um`` and ``shift_z``, ``shift_y``, ``shift_x`` (Å from the centre, also in the position); orientation
        is the true pose.

    Raises
    ------
    InputError
        When two structures have one name, or the stack has another shape.
    """
    import torch

    _check_names(structures)
    total, box = settings.count * len(structures) + settings.background, settings.box_px
    if stack is not None and stack.shape != (total, box, box, box):
        raise InputError(f"expected a stack of shape {(total, box, box, box)} to fill, got {stack.shape}")
    boxes = np.empty((total, box, box, box), dtype=np.float16) if stack is None else stack

    noise = np.array([row.noise_deviation for row in _signal_to_noise(structures, settings)])
    scene = _draw_scene(structures, settings, rng)
    # an empty place is as noisy as the place of some particle
    noise = noise[np.where(scene.which < 0, rng.integers(len(structures), size=total), scene.which)]
    moments = np.empty((total, 2))
    image = _imager(scene, _templates(structures, settings), settings, noise)

    def fill(rows: NDArray[np.int64], seed: int) -> None:
        values = image(rows, np.random.default_rng(seed)).numpy()
        mean, deviation = values.mean(axis=(1, 2, 3)), values.std(axis=(1, 2, 3))
        moments[rows] = np.stack([mean, deviation], axis=1)
        values -= mean[:, None, None, None]
        values /= np.where(deviation > 0, deviation, 1)[:, None, None, None]
        boxes[rows[0] : rows[-1] + 1] = torch.from_numpy(values).half().numpy()

    # every chunk has its own seed, so that the number of threads does not matter
    chunks = _chunks(total, _work_px(settings))
    seeds = rng.integers(2**63, size=len(chunks))
    with _one_thread_each(), ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(fill, chunks, seeds))
    names = np.array([*(s.name for s in structures), BACKGROUND], dtype=object)
    particles = Particles.create(
        name,
        scene.offsets + (box // 2) * settings.voxel_size,
        scene.rotations,
        {
            "class": names[scene.which],
            "mean": moments[:, 0],
            "deviation": moments[:, 1],
            "defocus_um": scene.defocus_um,
            **dict(zip(("shift_z", "shift_y", "shift_x"), scene.offsets.T, strict=True)),
        },
    )
    return Subtomograms(particles, boxes, settings.voxel_size, settings.missing_wedge)


def _check_names(structures: Sequence[Structure]) -> None:
    names = [s.name for s in structures]
    if not names:
        raise InputError("expected at least one structure to simulate, got none")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or BACKGROUND in names:
        wrong = f"{twice[0]!r} twice" if twice else f"{BACKGROUND!r}, which means no particle"
        raise InputError(f"expected every structure to have its own name, got {wrong}; name its file differently")


def _draw_scene(structures: Sequence[Structure], settings: SubtomogramSettings, rng: np.random.Generator) -> _Scene:
    kinds = np.repeat(np.arange(len(structures)), settings.count)
    which = rng.permutation(np.concatenate([kinds, np.full(settings.background, -1)]))
    n = len(which)
    rotations = random_rotations(n, rng)
    reach_px = settings.max_shift_px * settings.voxel_size
    offsets = np.where(which[:, None] < 0, 0.0, rng.uniform(-reach_px, reach_px, (n, 3)))
    defocus = rng.uniform(*settings.defocus_um, n)
    count, gap = settings.neighbours, settings.neighbour_gap
    points = [_outermost_points(s) for s in structures] if count else []
    around = surround(points, which, rotations, offsets, rng, count=count, gap=gap)
    return _Scene(which, rotations, offsets, defocus, around)


@lru_cache(maxsize=64)
def _outermost_points(structure: Structure) -> NDArray[np.float64]:
    return outermost_points(structure.centred().positions)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from splitting its operations, while chunks are what runs in parallel."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _imager(
    scene: _Scene, templates: Sequence[_Template], settings: SubtomogramSettings, noise: NDArray[np.float64]
) -> Callable[[NDArray[np.int64], np.random.Generator], Tensor]:
    """What makes the noisy boxes of some consecutive rows of the scene."""
    import torch

    box = settings.box_px
    work = _work_px(settings)
    microscope = _microscope(work, settings)
    filtering = torch.from_numpy(_noise_transfer((box, box, box), settings))
    around = scene.neighbours

    def image(rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        boxes = torch.zeros(len(rows), work, work, work)
        offsets = scene.offsets[rows] / settings.voxel_size
        _render(templates, scene.which[rows], scene.rotations[rows], offsets, rows - rows[0], boxes)
        near = np.flatnonzero((around.owner >= rows[0]) & (around.owner <= rows[-1]))
        if len(near):
            offsets, owner = around.offsets[near] / settings.voxel_size, around.owner[near] - rows[0]
            _render(templates, around.which[near], around.rotations[near], offsets, owner, boxes)
        seen = _middle(microscope.image(boxes, scene.defocus_um[rows]), box)
        if settings.snr is None:
            return seen.contiguous()
        white = torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32))
        level = torch.from_numpy(noise[rows].astype(np.float32))[:, None, None, None]
        spectrum = torch.fft.rfftn(white, dim=(1, 2, 3)).mul_(filtering).mul_(level)
        return torch.fft.irfftn(spectrum, s=(box, box, box), dim=(1, 2, 3)).add_(seen)

    return image


# ---------------------------------------------------------------------------------------------- tomograms


def simulate_tomogram(
    structures: Sequence[Structure],
    settings: TomogramSettings,
    rng: np.random.Generator,
    name: str = "simulated",
) -> SimulatedTomogram:
    """A tomogram of complexes placed at random without overlap, with the truth about it.

    Complexes are placed from large to small, each at a random place where its molecular envelope is inside the volume
    and touches no other (random sequential addition). The envelope is where the density exceeds the level that
    encloses the molecular volume. |CTF| × wedge is applied to the whole volume, and noise in the measured wedge added.

    Parameters
    ----------
    structures
        One class each, named by the structure.
    settings
        Volume, crowding, microscope and noise.
    rng
        Decides everything: the same state gives the same bytes.
    name
        The tomogram's name.

    Raises
    ------
    InputError
        When two structures have one name, numbers do not fit the structures, or so many do not find room; the message
        says what was reached.
    """
    import torch

    _check_names(structures)
    shape = settings.shape
    defocus = float(rng.uniform(*settings.defocus_um))
    density, truth, classes, instances = _fill(_templates(structures, settings), settings, rng, name)

    sign = -1.0 if settings.contrast == "dark" else 1.0
    transfer = settings.missing_wedge.mask(shape) * _ctf_magnitude(
        frequency_grid(shape, settings.voxel_size), settings, defocus
    )
    spectrum = torch.fft.rfftn(torch.from_numpy(density)) * torch.from_numpy(sign * transfer)
    noise_free = torch.fft.irfftn(spectrum, s=shape).numpy()
    data = noise_free
    if settings.snr is not None:
        level = _signal_to_noise(structures, settings, defocus)[0].noise_deviation
        white = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        spectrum = torch.fft.rfftn(white) * torch.from_numpy(np.float32(level) * _noise_transfer(shape, settings))
        data = noise_free + torch.fft.irfftn(spectrum, s=shape).numpy()
    voxel = settings.voxel_size
    return SimulatedTomogram(
        tomogram=Tomogram(Volume(data, voxel), name, settings.missing_wedge, settings.contrast),
        particles=truth,
        classes=Labels(classes, voxel, dict(enumerate(sorted(s.name for s in structures), start=1))),
        instances=Labels(instances, voxel),
        defocus_um=defocus,
        noise_free=noise_free,
    )


def _fill(
    templates: Sequence[_Template], settings: TomogramSettings, rng: np.random.Generator, name: str
) -> tuple[NDArray[np.float32], Particles, NDArray[np.uint16], NDArray[np.uint16]]:
    """Density, truth, class and instance labels of a volume filled from the largest structure to the smallest."""
    structures = [t.structure for t in templates]
    gap, voxel = settings.gap_px, settings.voxel_size
    density = np.zeros(settings.shape, dtype=np.float32)
    instances, classes = (np.zeros(settings.shape, dtype=np.uint16) for _ in range(2))
    taken = np.zeros([n + 2 * gap for n in settings.shape], dtype=bool)
    label = {s: i for i, s in enumerate(sorted(s.name for s in structures), start=1)}
    wanted = _numbers(structures, settings)
    kinds: list[int] = []
    places: list[NDArray[np.float64]] = []
    turns: list[NDArray[np.float64]] = []
    for kind in np.argsort([-envelope_volume(s) for s in structures], kind="stable"):
        for stamp, mask, quaternion, fraction in _stamps(templates[kind], int(wanted[kind]), rng):
            place = free_place(taken, mask, rng, gap_px=gap)
            if place is None:
                raise InputError(
                    f"expected room for {wanted[kind]} of {structures[kind].name} in {name}, found it for "
                    f"{kinds.count(int(kind))}, with an occupancy of {np.mean(instances > 0):.3f} reached; "
                    "ask for fewer or for a larger volume"
                )
            inside, kept = overlap(settings.shape, len(stamp), place)
            density[inside] += stamp[kept]
            instances[inside][mask[kept]] = len(kinds) + 1
            classes[inside][mask[kept]] = label[structures[kind].name]
            taken[tuple(slice(s.start + gap, s.stop + gap) for s in inside)] |= mask[kept]
            kinds.append(int(kind))
            places.append((np.array(place) + fraction) * voxel)
            turns.append(quaternion)
    rows = [structures[k] for k in kinds]
    truth = Particles.create(
        name,
        np.reshape(places, (-1, 3)),
        Rotation.from_quat(np.reshape(turns, (-1, 4))),
        {
            "class": [s.name for s in rows],
            "radius": [picking_radius(s) for s in rows],
            "mass_kda": [s.mass_kda for s in rows],
            "structure": [s.source for s in rows],
        },
    )
    return density, truth, classes, instances


def _stamps(
    template: _Template, count: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]]:
    """Density, envelope, orientation and fraction of a voxel of randomly turned copies."""
    for n in map(len, _chunks(count, template.size)):
        rotations, fractions = random_rotations(n, rng), rng.uniform(-0.5, 0.5, (n, 3))
        for stamp, quaternion, fraction in zip(
            template.stamps(rotations, fractions), rotations.as_quat(), fractions, strict=True
        ):
            yield stamp, stamp > min(template.threshold, float(stamp.max()) * 0.999), quaternion, fraction


def _numbers(structures: Sequence[Structure], settings: TomogramSettings) -> NDArray[np.int64]:
    """How many of each structure."""
    given = settings.counts if settings.counts is not None else settings.abundances
    if given is not None and len(given) not in (1, len(structures)):
        raise InputError(f"expected one number for each of {len(structures)} structures, or one for all, got {given}")
    if given is not None and (min(given) < 0 or sum(given) <= 0):
        raise InputError(f"expected numbers of structures of at least 0, and some above, got {given}")
    share = np.ones(len(structures)) if given is None else np.broadcast_to(given, len(structures)).astype(float)
    if settings.counts is not None:
        return share.astype(np.int64)
    room = settings.occupancy * math.prod(settings.shape) * settings.voxel_size**3
    volumes = np.array([envelope_volume(s) for s in structures])
    return np.maximum(np.round(share * room / np.sum(share * volumes)), share > 0).astype(np.int64)
