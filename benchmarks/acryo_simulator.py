"""Test tomograms of an independent simulator, acryo's: nothing here is computed by tomotif's own simulator.

acryo makes the density (a histogram of the atoms), rotates and interpolates it, projects every molecule on every
image of the tilt series, applies the CTF to the images and flips its phases, and reconstructs by direct Fourier
inversion. Added here: where the molecules lie, white noise in the projections, and the images of beads and vesicles.

Two conditions, both crowded and with CTF and noise: ``plain``, and ``cell`` with a B factor that grows with the
exposure, errors of the alignment and of the defocus, molecules of unequal contrast, a gold bead and a vesicle. acryo
models no camera (MTF), no defocus gradient across a tilted image, no coloured noise and no filaments, so a test on it
cannot show what those are worth.

acryo: https://github.com/hanjinliu/acryo (extra ``benchmark``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import MissingWedge, Particles, Tomogram, Volume
from tomotif.io.structure import load_structure

if TYPE_CHECKING:
    from acryo.ctf import CTFModel

VOXEL = 12.0
"""Å."""
NM = VOXEL / 10
"""The same in nm, acryo's unit."""

_FINE = 3
"""Bins of the histogram of atoms along the edge of a voxel."""
_SIGMA = 4.0
"""Å; Gaussian that smooths the histogram, which voxels and linear interpolation smooth too: about 30 Å in all."""
_EXPOSURE = 3.0
"""Electrons/Å² an image."""
_BOX_PX, _ALONE_PX, _POSES = 32, 65, 16
"""Box that the SNR is about, images of a complex alone that it is measured in, and how many orientations."""
_VESICLE_PX, _BEAD_PX = 20, 4
"""Radius of vesicles (24 nm to the middle of the membrane) and of gold beads (about 5 nm)."""
_BEAD, _HEADS, _TAILS = 18.0, 0.60, -0.20
"""Density in e/Å³ on the scale where protein has 0.43 and only the contrast against water counts."""


@dataclass(frozen=True)
class Condition:
    """What lies in the tomograms and how they are seen."""

    name: str
    defocus_um: tuple[float, float] = (2.0, 6.0)
    """Range of the underfocus; each tomogram draws its own."""
    defocus_scatter_um: float = 0.0
    """Standard deviation of the images' defocus about the series', which the phase flipping does not know of."""
    damage: float = 0.0
    """B factor in nm² for each electron/Å² received."""
    shift_px: float = 0.0
    """Standard deviation of the shift of an image that the reconstruction does not know of."""
    angle: float = 0.0
    """The same in degrees for the tilt angles and for the direction of the tilt axis."""
    gains: tuple[float, ...] = (1.0,)
    """Contrast of the molecules, as many of each."""
    vesicles: int = 0
    beads: int = 0


PLAIN = Condition("plain")
CELL = Condition(
    "cell",
    defocus_scatter_um=0.1,
    damage=0.04,  # 4 Å², the usual figure of RELION and M
    shift_px=0.5,
    angle=0.5,
    gains=(0.7, 1.0, 1.3),
    vesicles=1,
    beads=1,
)


@dataclass(frozen=True)
class Size:
    """How large a tomogram is; odd numbers, so that the centre is the same voxel in all parts of acryo."""

    shape: tuple[int, int, int] = (97, 161, 161)
    """Voxels zyx of the tomogram."""
    thickness_px: int = 65
    """Voxels in z, in its middle, that hold molecules."""
    count: int = 40
    """Molecules of each class in a tomogram."""
    distractors: int = 25
    """Molecules of each complex that is no class."""
    tilts: tuple[float, ...] = tuple(np.arange(-60.0, 60.1, 3.0).tolist())
    """Tilt angles in degrees."""


@dataclass(frozen=True, eq=False)
class Specimen:
    """A tilt series without noise, and the truth about it."""

    name: str
    images: NDArray[np.float32]
    """(tilts, y, x)."""
    particles: Particles
    defocus_um: float
    shifts_px: NDArray[np.float64]
    """(tilts, 2), errors of the alignment."""
    angles: NDArray[np.float64]
    """(2, tilts), errors in degrees of the tilt and of the direction of the tilt axis."""


@lru_cache(maxsize=32)
def template(name: str) -> NDArray[np.float32]:
    """Density (n, n, n) in e/Å³ of a complex about its centre of mass, by acryo's histogram of atoms, n odd."""
    from acryo.pipe import from_atoms, gaussian_filter

    structure = load_structure(name)
    atoms, centre = structure.positions.astype(np.float64) / 10, tuple((structure.centre_of_mass / 10).tolist())
    counts = from_atoms(atoms, structure.weights.astype(np.float64), centre)(NM / _FINE)
    smooth = gaussian_filter(sigma=_SIGMA / 10)(_framed(counts), NM / _FINE)
    n = len(smooth) // _FINE
    return (smooth.reshape(n, _FINE, n, _FINE, n, _FINE).sum(axis=(1, 3, 5)) / VOXEL**3).astype(np.float32)


def _framed(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """A histogram in the middle of a wider cube that is an odd number of whole voxels along each edge."""
    if len(counts) % 2 == 0:  # an odd number of whole voxels is an odd number of bins
        counts = np.pad(counts, ((0, 1),) * 3)
        counts = np.mean([np.roll(counts, shift, axis=(0, 1, 2)) for shift in np.ndindex(2, 2, 2)], axis=0)
    voxels = math.ceil((len(counts) / _FINE) + 6 * _SIGMA / VOXEL)
    edge = (voxels + 1 - voxels % 2) * _FINE
    return np.pad(counts, (edge - len(counts)) // 2).astype(np.float32)


def bead() -> NDArray[np.float32]:
    """A solid ball of gold (n, n, n)."""
    return np.float32(_BEAD) / (1 + np.exp(4 * (_distance(_BEAD_PX + 3) - _BEAD_PX))).astype(np.float32)


def vesicle() -> NDArray[np.float32]:
    """A closed membrane (n, n, n): two leaflets of heads 4 nm apart with tails between them."""
    off = (_distance(_VESICLE_PX + 5) - _VESICLE_PX) * VOXEL
    leaflets = sum(_HEADS * np.exp(-(((off - at) / 8) ** 2) / 2) for at in (-20, 20))
    return (leaflets + _TAILS * np.exp(-((off / 10) ** 2) / 2)).astype(np.float32)


def _distance(half: int) -> NDArray[np.float64]:
    axis = np.arange(-half, half + 1.0)
    return np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)


def ball_radius(name: str) -> float:
    """Radius in voxels of the solid ball with the complex's radius of gyration, that others keep out of."""
    return math.sqrt(5 / 3) * load_structure(name).radius_of_gyration / VOXEL


def place_balls(
    radii: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Places (n, 3) of balls that do not overlap, inside a cuboid; drawn one after the other, the large ones first.

    Raises
    ------
    RuntimeError
        When one finds no room in 20,000 draws.
    """
    places = np.full((len(radii), 3), np.inf)
    for row in np.argsort(-radii, kind="stable"):
        tries = rng.uniform(lower + radii[row], upper - radii[row], (20_000, 3))
        done = np.isfinite(places[:, 0])
        for start in range(0, len(tries), 500):
            part = tries[start : start + 500]
            apart = np.linalg.norm(part[:, None] - places[None, done], axis=2) - radii[done] - radii[row]
            free = np.flatnonzero(np.all(apart >= 0, axis=1))
            if len(free):
                places[row] = part[free[0]]
                break
        else:
            raise RuntimeError(f"expected room for {len(radii)} balls, found it for {done.sum()}; take fewer")
    return places


def make_specimen(
    name: str,
    classes: tuple[str, ...],
    distractors: tuple[str, ...],
    condition: Condition,
    size: Size,
    rng: np.random.Generator,
) -> Specimen:
    """A tilt series (tilts, y, x) of randomly placed and turned molecules, without noise.

    Parameters
    ----------
    name
        Of the tomogram.
    classes, distractors
        Complexes of the package's library; the latter get the class "distractor".
    condition, size
        What lies there, and how many.
    rng
        Decides everything.
    """
    from acryo import Molecules, TomogramSimulator

    kinds = [*np.repeat(classes, size.count), *np.repeat(distractors, size.distractors)]
    scenery = ["vesicle"] * condition.vesicles + ["bead"] * condition.beads
    outside = {"vesicle": _VESICLE_PX + 3.0, "bead": _BEAD_PX + 1.0}
    radii = np.array([ball_radius(kind) for kind in kinds] + [outside[kind] for kind in scenery])
    depth, *wide = size.shape
    border = (depth - size.thickness_px) / 2
    places = place_balls(radii, np.array([border, 0, 0]), np.array([depth - border, *wide]) - 1.0, rng)
    turns = Rotation.random(len(radii), rng)
    gains = rng.choice(condition.gains, len(radii))
    gains[len(kinds) :] = 1.0

    simulator = TomogramSimulator(order=1, scale=NM)
    everything = np.array([*kinds, *scenery])
    images = {"vesicle": vesicle, "bead": bead}
    for kind in dict.fromkeys(everything):
        image = images[kind]() if kind in images else template(kind)
        for gain in np.unique(gains[everything == kind]):
            rows = (everything == kind) & (gains == gain)
            molecules = Molecules(places[rows] * NM, turns[rows])
            simulator.add_molecules(molecules, np.float32(gain) * image, name=f"{kind} {gain}")
    series = simulator.simulate_tilt_series(size.tilts, size.shape)

    defocus = float(rng.uniform(*condition.defocus_um))
    of_images = defocus + rng.normal(0, 1, len(size.tilts)) * condition.defocus_scatter_um
    truth = Particles.create(
        name,
        places[: len(kinds)] * VOXEL,
        columns={
            "class": [kind if kind in classes else "distractor" for kind in kinds],
            "radius": radii[: len(kinds)] * VOXEL,
        },
    )
    return Specimen(
        name=name,
        images=imaged(series, _ctf(condition, size.tilts, of_images)),
        particles=truth,
        defocus_um=defocus,
        shifts_px=rng.normal(0, 1, (len(size.tilts), 2)) * condition.shift_px,
        angles=rng.normal(0, 1, (2, len(size.tilts))) * condition.angle,
    )


def imaged(series: NDArray[np.float32], models: list[CTFModel]) -> NDArray[np.float32]:
    """The images (tilts, y, x) behind the microscope, each with its own CTF and B factor."""
    return np.stack([m.apply_ctf(image, NM) for m, image in zip(models, series, strict=True)]).astype(np.float32)


def flipped(images: NDArray[np.floating], models: list[CTFModel]) -> NDArray[np.float32]:
    """The images corrected for the sign of the CTF that they are believed to have."""
    return np.stack([m.phase_flip(image, NM) for m, image in zip(models, images, strict=True)]).astype(np.float32)


def _ctf(condition: Condition, tilts: tuple[float, ...], defocus_um: float | NDArray[np.float64]) -> list[CTFModel]:
    """Give the model of every image; in a dose-symmetric series the exposure grows with the angle."""
    from acryo.ctf import CTFModel

    received = (np.argsort(np.argsort(np.abs(tilts), kind="stable")) + 0.5) * _EXPOSURE
    each = np.broadcast_to(defocus_um, len(tilts))
    return [
        CTFModel.from_kv(300, 2.7, defocus=-float(d), bfactor=float(e) * condition.damage)
        for d, e in zip(each, received, strict=True)
    ]


def reconstruct(
    specimen: Specimen, condition: Condition, size: Size, noise: float, rng: np.random.Generator
) -> Tomogram:
    """Tomogram (dense is bright) of a tilt series with white noise of this deviation in its images."""
    from acryo.projection import TiltSeries, reconstruct_tomogram

    images = specimen.images + np.float32(noise) * rng.standard_normal(specimen.images.shape, dtype=np.float32)
    images = flipped(images, _ctf(condition, size.tilts, specimen.defocus_um))
    believed = TiltSeries(
        np.array(size.tilts) + specimen.angles[0],
        specimen.angles[1],
        sample_translations=specimen.shifts_px * NM,
        scale=NM,
    )
    data = reconstruct_tomogram(believed, images, size.shape, patch_size=48, dtype=np.float32, num_workers=2)
    wedge = MissingWedge(min(size.tilts), max(size.tilts))
    return Tomogram(Volume(np.asarray(data), VOXEL), specimen.name, wedge, "bright")


def noise_for(snr: float, reference: str, condition: Condition, size: Size, defocus_um: float) -> float:
    """Deviation of the noise in the images at which a complex has an SNR in the reconstruction.

    SNR is Var(noise-free reconstruction of the particle alone) / Var(noise-only reconstruction) over its cubic box of
    32³, the mean over random orientations.
    """
    signal, unit = _variances(reference, condition, size.tilts, round(defocus_um, 2))
    return math.sqrt(signal / unit / snr)


@lru_cache(maxsize=64)
def _variances(
    reference: str, condition: Condition, tilts: tuple[float, ...], defocus_um: float
) -> tuple[float, float]:
    """Mean variance over the box of a complex alone, and of noise of deviation 1 alone, both reconstructed."""
    from acryo.projection import DirectFourierReconstructor, TiltSeries

    models = _ctf(condition, tilts, defocus_um)
    rotations = TiltSeries(np.array(tilts), 0.0, scale=NM).local_detector2tomo
    middle = np.full((len(tilts), 2), _ALONE_PX // 2)

    def variance(images: NDArray[np.floating]) -> float:
        boxes = DirectFourierReconstructor(flipped(images, models), rotations, NM, NM, _BOX_PX)
        return float(boxes(middle).var())

    rng = np.random.default_rng(0)  # the same noise always: its level is no part of the drawing
    alone = _alone(reference, tilts)
    signal = [variance(imaged(series, models)) for series in alone]
    noise = [variance(rng.standard_normal(series.shape)) for series in alone]
    return float(np.mean(signal)), float(np.mean(noise))


@lru_cache(maxsize=4)
def _alone(reference: str, tilts: tuple[float, ...]) -> list[NDArray[np.float32]]:
    """Tilt series (tilts, y, x) of a complex alone, in random orientations."""
    from acryo import Molecules, TomogramSimulator

    made = []
    for turn in Rotation.random(_POSES, np.random.default_rng(0)):
        simulator = TomogramSimulator(order=1, scale=NM)
        place = np.full((1, 3), _ALONE_PX // 2 * NM)
        simulator.add_molecules(Molecules(place, Rotation.concatenate([turn])), template(reference))
        made.append(simulator.simulate_tilt_series(tilts, (_ALONE_PX,) * 3))
    return made
