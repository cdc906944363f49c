"""Subtomograms from crowded simulated tomograms, for the benchmarks of classification, features and discovery.

Ten complexes of which eight lie between 350 and 620 kDa, so that size alone does not name them, and background: other
complexes, membranes, gold, actin and empty ice. Full-path tomograms at 15 % occupancy and more, no tomogram in two
parts. What is kept of every place is the reconstruction without noise and one of noise alone, so that any
signal-to-noise ratio can be made of the same specimen: reconstruction is linear. The noise is that of RuBisCO at
SNR 0.1; another SNR scales it.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import BACKGROUND, MissingWedge, Particles, Subtomograms, Tomogram, Volume
from tomotif.io.files import replacing
from tomotif.io.structure import load_structure
from tomotif.tasks.extract import ExtractSettings, extract
from tomotif.tasks.simulate import (
    FilamentSettings,
    GoldSettings,
    MembraneSettings,
    SubtomogramSettings,
    TomogramSettings,
    build_specimen,
    signal_to_noise,
)
from tomotif.tasks.simulate.templates import render, template
from tomotif.tasks.simulate.tomogram import Camera, signal_levels

CLASSES = ("5tbz", "1w6t", "1wcm", "2fha", "3cf3", "1bxn", "5t4o", "1qvr", "1oel", "4v5d")
OTHERS = ("1e6v", "1u6g", "2cg9", "1gyt")
"""Distractors: of no class."""
SNRS = (0.1, 0.05, 0.03, 0.01)
TILTS = (60, 50, 40)
"""Largest tilt in degrees."""
UNIT_SNR = 0.1
"""Of the noise that is kept."""
CENTRE = ("centre_z", "centre_y", "centre_x")
"""Columns with the particle's own centre in Å, which its box lies a little off."""
OFFSET_PX = 1.5
"""How far a box may lie off its particle, along each axis."""
SETTINGS = TomogramSettings(
    shape=(128, 256, 256),
    occupancy=0.15,
    distractors=OTHERS,
    distractor_occupancy=0.03,
    membranes=(MembraneSettings(kind="vesicle", count=1, radius=(200.0, 350.0)),),
    filaments=(FilamentSettings(kind="actin", count=3, length=(600.0, 1500.0)),),
    gold=(GoldSettings(count=2),),
    contrast_spread=0.15,
    shift_jitter=4.0,
    axis_jitter=0.2,
    tilt_jitter=0.3,
    defocus_jitter_um=0.1,
    contrast="bright",
    snr=UNIT_SNR,
)
"""All but the tilt range; random placement reaches no more than this with scenery and these classes."""


@dataclass(frozen=True)
class Size:
    """How many tomograms of each tilt range, how many boxes of each class from one of them, which classes, what grid.

    There are twice as many boxes of background.
    """

    train: int = 8
    validation: int = 1
    test: int = 7
    boxes: int = 60
    shape: tuple[int, int, int] = (128, 256, 256)
    classes: tuple[str, ...] = CLASSES
    voxel_size: float = 12.0
    box_px: int = 32


FULL = Size()
QUICK = Size(train=2, validation=1, test=1, boxes=16, shape=(64, 160, 160))
_FIRST = {"train": 0, "validation": 1000, "test": 2000}
"""Seeds of the parts' tomograms."""


ARRAYS = ("signal", "noise", "classes", "tomogram", "pose", "offset_px")
"""Fields of boxes with a row for each."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Places in tomograms of one tilt range, with and without particles.

    Attributes
    ----------
    signal, noise
        Boxes (n, D, D, D) float16, bright: the reconstruction without noise, and one of noise alone of variance 1, both
        in units of the noise at ``UNIT_SNR``.
    classes
        Name of the class of every box.
    tomogram
        Name of the tomogram of every box.
    pose
        Quaternion (n, 4), scalar last, that turns the structure into its orientation.
    offset_px
        Where the particle lies, (n, 3) in voxels from the centre of the box; zero for background.
    """

    signal: NDArray[np.float16]
    noise: NDArray[np.float16]
    classes: NDArray[np.str_]
    tomogram: NDArray[np.str_]
    pose: NDArray[np.float32]
    offset_px: NDArray[np.float32]
    tilt: int
    voxel_size: float

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, rows: NDArray[np.integer]) -> Boxes:
        """These boxes."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ARRAYS})

    def noise_free(self) -> Subtomograms:
        """The signal alone, in units of the noise, not z-scored."""
        columns = {"class": self.classes, "stack_index": range(len(self))}
        particles = Particles.create(self.tomogram.tolist(), np.zeros((len(self), 3)), columns=columns)
        return Subtomograms(particles, self.signal, self.voxel_size, MissingWedge(-self.tilt, self.tilt))

    def at(self, snr: float | NDArray[np.float64]) -> Subtomograms:
        """Boxes at a signal-to-noise ratio, or at one of its own for each, z-scored."""
        level = np.sqrt(UNIT_SNR / np.broadcast_to(np.asarray(snr, np.float64), len(self))).astype(np.float32)
        stack = np.empty(self.signal.shape, np.float16)
        for start in range(0, len(self), 256):
            part = slice(start, start + 256)
            boxes = self.signal[part] + level[part, None, None, None] * self.noise[part]
            boxes -= boxes.mean(axis=(1, 2, 3), keepdims=True)
            stack[part] = boxes / boxes.std(axis=(1, 2, 3), keepdims=True)
        return replace(self.noise_free(), stack=stack)


def alone(boxes: Boxes) -> NDArray[np.float16]:
    """Density of each box's particle without its neighbours, CTF, wedge and noise, (n, D, D, D); 0 for background."""
    names = np.unique(boxes.classes[boxes.classes != BACKGROUND])
    ready = [template(load_structure(name), boxes.voxel_size, SETTINGS.resolution) for name in names]
    which = np.where(boxes.classes == BACKGROUND, -1, np.searchsorted(names, boxes.classes))
    stack = np.empty(boxes.signal.shape, np.float16)
    for start in range(0, len(boxes), 256):
        part = slice(start, start + 256)
        drawn = torch.zeros(boxes.signal[part].shape)
        offsets = boxes.offset_px[part].astype(np.float64)
        render(ready, which[part], Rotation.from_quat(boxes.pose[part]), offsets, np.arange(len(drawn)), drawn)
        stack[part] = drawn.numpy()
    return stack


def settings_of(tilt: int, size: Size, rng: np.random.Generator) -> TomogramSettings:
    """Of one tomogram: it draws how crowded it is."""
    return SETTINGS.model_copy(
        update={
            "tilt_range": (-float(tilt), float(tilt)),
            "shape": size.shape,
            "voxel_size": size.voxel_size,
            "occupancy": float(rng.uniform(0.12, SETTINGS.occupancy or 0)),
        }
    )


def snr_of(names: Sequence[str], settings: SubtomogramSettings | TomogramSettings) -> dict[str, dict[str, float]]:
    """SNR of every structure alone over its box, and inside the signal's band, frequencies below 1/30 Å⁻¹."""
    table = signal_to_noise([load_structure(name) for name in names], settings).set_index("class")
    return {
        str(name): {"snr": round(float(row.snr), 4), "band": round(float(row.snr_band), 3)}
        for name, row in table.iterrows()
    }


def make_boxes(tilt: int, size: Size, part: str, number: int) -> Boxes:
    """Simulate one tomogram and cut its boxes."""
    rng = np.random.default_rng((_FIRST[part] + number, tilt))
    settings, name = settings_of(tilt, size, rng), f"{part}_{tilt}_{number:02d}"
    structures = [load_structure(one) for one in size.classes]
    defocus = float(rng.uniform(*settings.defocus_um))
    specimen = build_specimen(structures, settings, rng, name)
    _, deviation = signal_levels(specimen, structures, settings, defocus)
    camera = Camera.draw(settings, defocus, deviation, rng)
    volumes = [camera.reconstruct(images) for images in (camera.expose(specimen.density), camera.noise(rng))]
    tomograms = [
        Tomogram(Volume(volume, size.voxel_size), name, settings.missing_wedge, settings.contrast) for volume in volumes
    ]
    places = chosen_places(specimen.particles, tomograms[0], size, rng)
    signal, noise = (raw_boxes(places, tomogram, size.box_px) / np.float32(deviation) for tomogram in tomograms)
    names = places["class"].to_numpy().astype(str)
    return Boxes(
        signal=signal.astype(np.float16),
        noise=noise.astype(np.float16),
        classes=names,
        tomogram=np.full(len(names), name),
        pose=places.orientation.as_quat().astype(np.float32),
        offset_px=offsets_px(places, size.voxel_size).astype(np.float32),
        tilt=tilt,
        voxel_size=size.voxel_size,
    )


def chosen_places(truth: Particles, tomogram: Tomogram, size: Size, rng: np.random.Generator) -> Particles:
    """Up to ``size.boxes`` places of each class a little off, and twice as many of background.

    Half of the background are particles of no class, the rest is anywhere outside the particles of the classes.
    """
    extent = np.array(tomogram.shape) * tomogram.voxel_size
    margin = (size.box_px // 2 + OFFSET_PX + 1) * tomogram.voxel_size

    def within(position: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.all((position >= margin) & (position <= extent - margin), axis=1)

    names = truth["class"].to_numpy().astype(str)
    fits = within(truth.position)
    rows = [rng.permutation(np.flatnonzero(fits & (names == name)))[: size.boxes] for name in size.classes]
    of_classes = np.isin(names, size.classes)
    others = rng.permutation(truth.position[fits & ~of_classes])[: size.boxes]
    anywhere = rng.uniform(margin, extent - margin, (20 * size.boxes, 3))
    known = truth.position[of_classes]
    reach = truth["radius"].to_numpy(np.float64)[of_classes] + OFFSET_PX * tomogram.voxel_size
    apart = np.linalg.norm(anywhere[:, None] - known[None], axis=2) > reach
    empty = np.concatenate([others, anywhere[apart.all(axis=1)]])[: 2 * size.boxes]
    chosen = truth.take(np.concatenate(rows))
    centre = np.concatenate([chosen.position, empty])
    where = centre + rng.uniform(-OFFSET_PX, OFFSET_PX, centre.shape) * tomogram.voxel_size
    labels = [*chosen["class"].astype(str), *[BACKGROUND] * len(empty)]
    pose = Rotation.concatenate([chosen.orientation, Rotation.identity(len(empty))])
    of_centre = dict(zip(CENTRE, centre.T, strict=True))
    return Particles.create(tomogram.name, where, pose, columns={"class": labels, **of_centre})


def offsets_px(places: Particles, voxel_size: float) -> NDArray[np.float64]:
    """From the centre voxel of each box to its particle, in voxels; zero for background."""
    centre = np.stack([places[name].to_numpy(np.float64) for name in CENTRE], axis=1) / voxel_size
    middle = np.rint(places.position / voxel_size)
    return np.where((places["class"] == BACKGROUND).to_numpy()[:, None], 0.0, centre - middle)


def raw_boxes(places: Particles, tomogram: Tomogram, box_px: int) -> NDArray[np.float32]:
    """Boxes in the tomogram's own units."""
    stack = np.empty((len(places), box_px, box_px, box_px), np.float16)
    cut = extract(places, [tomogram], ExtractSettings(box_px=box_px), stack)
    if len(cut) != len(places):
        raise RuntimeError(f"expected {len(places)} boxes inside {tomogram.name}, got {len(cut)}")
    mean, deviation = (cut[c].to_numpy(np.float32)[:, None, None, None] for c in ("mean", "deviation"))
    return stack * deviation + mean


# ---------------------------------------------------------------------------------------------- kept on disk


def folder_of(size: Size) -> Path:
    """Where the boxes of a study are kept between its cells, in the temporary folder of this machine."""
    code = "".join(inspect.getsource(made) for made in (settings_of, make_boxes, chosen_places, offsets_px, raw_boxes))
    version = blake2b((code + repr((size, SETTINGS))).encode(), digest_size=4).hexdigest()
    return Path(tempfile.gettempdir()) / f"tomotif_classify_{version}"


def kept_boxes(tilt: int, size: Size, part: str, number: int) -> Boxes:
    """Boxes of one tomogram, made now or read."""
    path = folder_of(size) / f"{part}_{tilt}_{number:02d}.npz"
    if not path.exists():
        made = make_boxes(tilt, size, part, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial_file, partial_file.open("wb") as file:
            np.savez(file, **{name: getattr(made, name) for name in ARRAYS})
        return made
    with np.load(path, allow_pickle=False) as found:
        return Boxes(**{name: found[name] for name in ARRAYS}, tilt=tilt, voxel_size=size.voxel_size)


def boxes_of(tilt: int, size: Size, part: str, *, workers: int = 2) -> Boxes:
    """Boxes of all tomograms of one part and tilt range."""
    with ThreadPoolExecutor(workers) as threads:
        made = list(threads.map(partial(kept_boxes, tilt, size, part), range(getattr(size, part))))
    return joined(made)


def joined(parts: Sequence[Boxes]) -> Boxes:
    """Several as one; the tilt range is that of the first."""
    arrays = {name: np.concatenate([getattr(one, name) for one in parts]) for name in ARRAYS}
    return Boxes(**arrays, tilt=parts[0].tilt, voxel_size=parts[0].voxel_size)
