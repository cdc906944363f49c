"""Simulated boxes for the benchmark of mining without labels, and what is in them.

All boxes are 32³ at 12 Å, ±60° about y, with the CTF of 2 to 6 µm defocus. By name:

- ``balanced_snr0.05`` (also 0.1, 0.03): eight complexes, 100 boxes of each, and 5 % junk: places without a particle in
  the middle. One neighbour each, off-centre by up to 1 voxel, from the fast simulator; the SNR is that of each complex.
- ``unbalanced_snr0.05`` (also 0.1, 0.03): the same with 200 boxes of one complex, falling geometrically to 10 of
  another; which is rare is drawn for each seed and SNR.
- ``contrast_snr0.05``: the very boxes of ``balanced_snr0.05``, but the signal of each is scaled by a gain (log-normal
  about 1, relative standard deviation 60 %, never below 0.2, independent of the class) while its noise stays.
- ``pair_1oel_1aon``, ``pair_3j9i_3l5q``: GroEL without and with GroES, 20S proteasome without and with Blm10; 270 boxes
  of each at SNR 0.3, no junk.
- ``tomograms``: the same eight in crowded tomograms (12 to 15 % of the volume inside complexes, SNR 0.1 of RuBisCO)
  with vesicles and planes of membrane and gold, picked with default settings. A pick is the true particle within half
  its radius, else a ``membrane`` where one is near, else ``junk``.

What methods get is blind: boxes, z-scored one by one, and a voxel size and wedge; no class, pose, gain or level of
noise. (At an SNR of each complex, the raw deviation of a box would tell its complex.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import classify_data
from tomotif.core import BACKGROUND, Particles, Subtomograms
from tomotif.io.structure import load_structure
from tomotif.ops.metrics import match
from tomotif.tasks.extract import ExtractSettings, extract, place_boxes
from tomotif.tasks.pick import pick
from tomotif.tasks.simulate import (
    GoldSettings,
    MembraneSettings,
    SimulatedTomogram,
    SubtomogramSettings,
    TomogramSettings,
    simulate_subtomograms,
    simulate_tomogram,
)

EIGHT = ("1bxn", "1oel", "3j9i", "4v8r", "2fha", "1qvr", "5tbz", "3cf3")
PAIRS = (("1oel", "1aon"), ("3j9i", "3l5q"))
SNRS = (0.1, 0.05, 0.03)
MIDDLE_SNR = 0.05
"""That of the five seeds and of the contrast nuisance."""
PAIR_SNR, TOMOGRAM_SNR = 0.3, 0.1
NEIGHBOURS = 1
GAIN_SPREAD, LEAST_GAIN = 0.6, 0.2
JUNK, MEMBRANE = "junk", "membrane"
JUNK_KINDS = (JUNK, MEMBRANE)
NEAR_MEMBRANE = 40.0
"""Å from the middle of a box, within which a membrane is what was picked."""
FEWEST, MOST = 10, 200
"""Boxes of the rarest and of the most frequent complex when unbalanced, at 100 of each when balanced."""
OTHER_SEEDS = 1000
"""Added to a seed for boxes to learn from."""
CROWDED = classify_data.SETTINGS.model_copy(
    update={
        "distractors": (),
        "distractor_occupancy": 0.0,
        "filaments": (),
        "membranes": (
            MembraneSettings(kind="vesicle", count=1, radius=(200.0, 350.0)),
            MembraneSettings(kind="plane", count=1),
        ),
        "gold": (GoldSettings(count=2),),
        "snr": TOMOGRAM_SNR,
    }
)
"""All but shape and occupancy of the tomograms: no complex or filament but the eight could be a pattern of its own."""

Cell = tuple[Subtomograms, NDArray[np.str_]]
"""Boxes and the class of each, or one of the kinds of junk."""


@dataclass(frozen=True)
class Size:
    """How large the data of a cell are.

    Attributes
    ----------
    complexes
        Those of all cells but the pairs.
    count
        Boxes of each when balanced; those of other cells are in proportion.
    junk
        Share of junk among all boxes.
    pair
        Boxes of both structures of a pair together.
    tomograms, shape
        Number and shape of the crowded tomograms.
    train
        How many times as many boxes the supervised ceiling learns from.
    """

    complexes: tuple[str, ...] = EIGHT
    count: int = 100
    junk: float = 0.05
    pair: int = 540
    tomograms: int = 2
    shape: tuple[int, int, int] = (96, 192, 192)
    train: int = 4


FULL = Size()
QUICK = Size(complexes=("1bxn", "1oel", "4v8r"), count=24, pair=48, tomograms=1, shape=(48, 128, 128), train=2)


@lru_cache(maxsize=1)
def cell_data(name: str, seed: int, size: Size) -> Cell:
    """The boxes of a cell, blind, and what is in each.

    Parameters
    ----------
    name
        One of :data:`CELLS`.
    seed
        Decides everything.
    size
        How many.
    """
    return CELLS[name](seed, size)


def training_data(name: str, seed: int, size: Size) -> Subtomograms:
    """Boxes of the same kind and other seeds with their ``class``; balanced where the cell is not."""
    kind = name.replace("unbalanced", "balanced")
    more = replace(
        size, count=size.train * size.count, pair=size.train * size.pair, tomograms=size.train * size.tomograms
    )
    boxes, truth = CELLS[kind](OTHER_SEEDS + seed, more)
    return replace(boxes, particles=boxes.particles.with_columns(**{"class": truth.astype(object)}))


# ---------------------------------------------------------------------------------------------- single boxes


def abundances(kinds: int, count: int) -> NDArray[np.int64]:
    """Boxes of each complex when unbalanced, falling geometrically, 20:1.

    >>> abundances(8, 100).tolist()
    [200, 130, 85, 55, 36, 24, 15, 10]
    """
    return np.rint(np.geomspace(MOST, FEWEST, kinds) * count / 100).astype(np.int64)


def junk_count(particles: int, share: float) -> int:
    """Boxes of junk beside so many particles, so that they are a share of all.

    >>> junk_count(800, 0.05)
    42
    """
    return round(particles * share / (1 - share))


def gains(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Contrast of every particle: log-normal about 1, with a relative standard deviation, and a least value."""
    sigma = np.sqrt(np.log1p(GAIN_SPREAD**2))
    drawn: NDArray[np.float64] = np.exp(sigma * rng.standard_normal(count) - sigma**2 / 2)
    return np.maximum(drawn, LEAST_GAIN)


def simulated(
    names: Sequence[str], count: int, background: int, snr: float | None, rng: np.random.Generator
) -> Subtomograms:
    """Boxes of some complexes and of junk, with all that is known of them; None: the same without noise."""
    settings = SubtomogramSettings(
        count=count, background=background, neighbours=NEIGHBOURS, snr=snr, snr_reference="each", max_shift_px=1.0
    )
    return simulate_subtomograms([load_structure(name) for name in names], settings, rng)


def truth_of(boxes: Subtomograms) -> NDArray[np.str_]:
    """Class of every simulated box."""
    names = boxes.particles["class"].to_numpy().astype(str)
    return np.where(names == BACKGROUND, JUNK, names)


def blind(boxes: Subtomograms) -> Subtomograms:
    """The boxes without what is known of them."""
    middle = np.full((len(boxes), 3), boxes.box_px // 2 * boxes.voxel_size)
    particles = Particles.create("boxes", middle, columns={"stack_index": np.arange(len(boxes))})
    return replace(boxes, particles=particles)


def raw(boxes: Subtomograms, rows: slice) -> NDArray[np.float32]:
    """Simulated boxes before they were z-scored."""
    mean, deviation = (
        boxes.particles[name].to_numpy(np.float32)[rows, None, None, None] for name in ("mean", "deviation")
    )
    return boxes.boxes(rows) * deviation + mean


def rescaled(noisy: Subtomograms, clean: Subtomograms, gain: NDArray[np.float64]) -> Subtomograms:
    """The noisy boxes with the signal of each scaled by its gain; the noise is what they have beside the clean ones."""
    stack = np.empty(noisy.stack.shape, np.float16)
    for start in range(0, len(noisy), 256):
        rows = slice(start, start + 256)
        boxes = raw(noisy, rows) + (gain[rows, None, None, None].astype(np.float32) - 1) * raw(clean, rows)
        boxes -= boxes.mean(axis=(1, 2, 3), keepdims=True)
        stack[rows] = boxes / boxes.std(axis=(1, 2, 3), keepdims=True)
    return replace(noisy, stack=stack)


def balanced(snr: float, seed: int, size: Size) -> Cell:
    """As many of each complex."""
    junk = junk_count(len(size.complexes) * size.count, size.junk)
    boxes = simulated(size.complexes, size.count, junk, snr, balanced_rng(snr, seed))
    return blind(boxes), truth_of(boxes)


def balanced_rng(snr: float, seed: int) -> np.random.Generator:
    """What decides balanced boxes."""
    return np.random.default_rng((seed, round(1000 * snr)))


def unbalanced(snr: float, seed: int, size: Size) -> Cell:
    """Some complexes rare."""
    rng = np.random.default_rng((seed, round(1000 * snr), 1))
    names = rng.permutation(size.complexes)
    wanted = abundances(len(names), size.count)
    junk = junk_count(int(wanted.sum()), size.junk)
    boxes = simulated(tuple(names), int(wanted.max()), junk, snr, rng)
    truth = truth_of(boxes)
    most = dict(zip(names, wanted, strict=True)) | {JUNK: junk}
    rows = np.sort(np.concatenate([np.flatnonzero(truth == name)[:count] for name, count in most.items()]))
    fewer = replace(boxes, particles=boxes.particles.take(rows), stack=np.asarray(boxes.stack)[rows])
    return blind(fewer), truth[rows]


def contrast(snr: float, seed: int, size: Size) -> Cell:
    """The balanced boxes with a contrast of its own each."""
    junk = junk_count(len(size.complexes) * size.count, size.junk)
    noisy, clean = (
        simulated(size.complexes, size.count, junk, level, balanced_rng(snr, seed)) for level in (snr, None)
    )
    gain = gains(len(noisy), np.random.default_rng((seed, round(1000 * snr), 2)))
    return blind(rescaled(noisy, clean, gain)), truth_of(noisy)


def pair(names: tuple[str, str], seed: int, size: Size) -> Cell:
    """A complex without and with a part."""
    rng = np.random.default_rng((seed, *map(ord, "".join(names))))
    boxes = simulated(names, size.pair // 2, 0, PAIR_SNR, rng)
    return blind(boxes), truth_of(boxes)


# ---------------------------------------------------------------------------------------------- picked boxes


def tomograms(seed: int, size: Size) -> Cell:
    """Picks in crowded tomograms."""
    parts = [picked(one_tomogram(seed, number, size)) for number in range(size.tomograms)]
    boxes, truth = [part[0] for part in parts], np.concatenate([part[1] for part in parts])
    particles = Particles.concat([one.particles for one in boxes])
    particles = particles.with_columns(stack_index=np.arange(len(particles)))
    return replace(boxes[0], particles=particles, stack=np.concatenate([one.stack for one in boxes])), truth


def one_tomogram(seed: int, number: int, size: Size) -> SimulatedTomogram:
    """A crowded tomogram; it draws how crowded it is."""
    rng = np.random.default_rng((seed, number, 3))
    settings: TomogramSettings = CROWDED.model_copy(
        update={"shape": size.shape, "occupancy": float(rng.uniform(0.12, 0.15))}
    )
    structures = [load_structure(name) for name in size.complexes]
    return simulate_tomogram(structures, settings, rng, f"crowded{seed}_{number}", noise_free=False)


def picked(simulated: SimulatedTomogram) -> Cell:
    """Boxes at what picking finds, and what is there."""
    tomogram = simulated.tomogram
    found = Particles.create(tomogram.name, pick(tomogram).position)  # no score or radius: boxes are all there is
    settings = ExtractSettings(box_px=32)
    placed = place_boxes(found, [tomogram], settings)
    stack = np.empty((len(placed), *(settings.box_px,) * 3), np.float16)
    extract(placed, [tomogram], settings, stack)
    truth = classes_at(placed.position, simulated)
    particles = Particles.create(tomogram.name, placed.position, columns={"stack_index": np.arange(len(placed))})
    return Subtomograms(particles, stack, tomogram.voxel_size, tomogram.missing_wedge), truth


def classes_at(position: NDArray[np.float64], simulated: SimulatedTomogram) -> NDArray[np.str_]:
    """Class of the true particle within half its radius of each position, else membrane where it is near, else junk."""
    particles, labels = simulated.particles, simulated.classes
    pairs = match(position, particles.position, particles["radius"].to_numpy(np.float64))
    index = np.rint(position / labels.voxel_size).astype(np.int64).clip(0, np.array(labels.data.shape) - 1)
    sheets = [number for number, name in labels.names.items() if name == MEMBRANE]
    away = ndimage.distance_transform_edt(~np.isin(labels.data, sheets), sampling=labels.voxel_size)
    near = away[tuple(index.T)] <= NEAR_MEMBRANE if sheets else np.zeros(len(index), bool)
    names = np.where(near, MEMBRANE, JUNK).astype(object)
    names[pairs[:, 0]] = particles["class"].to_numpy().astype(str)[pairs[:, 1]]
    return names.astype(str)


CELLS: dict[str, Callable[[int, Size], Cell]] = {
    **{f"balanced_snr{snr:g}": partial(balanced, snr) for snr in SNRS},
    **{f"unbalanced_snr{snr:g}": partial(unbalanced, snr) for snr in SNRS},
    f"contrast_snr{MIDDLE_SNR:g}": partial(contrast, MIDDLE_SNR),
    **{f"pair_{'_'.join(names)}": partial(pair, names) for names in PAIRS},
    "tomograms": tomograms,
}
"""How the data of every cell are made."""
