"""Make the encoders of ``src/tomotif/resources/models``: run from the root of the repository.

    python -m tools.pretrain_encoders            # both; hours on two cores, minutes on a GPU

What `tomotif mine` measures boxes with. An encoder is a ``motif3d_rif`` that learned to tell random assemblies apart
(``tasks/simulate/assemblies.py``), membranes, filaments and background, in crowded simulated tomograms at ±60°, ±50°
and ±40°, with noise drawn anew and the particle alone as a second task. No complex of nature is among them, so nothing
that is looked for in a cell was ever seen. The card's scores are of complexes that nobody showed it.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sklearn.metrics import v_measure_score

from benchmarks import classify_data as data
from tomotif.core import Labels, MissingWedge, Particles, Structure, Subtomograms, Tomogram, Volume
from tomotif.data.augment import wedge_safe_flips
from tomotif.data.noise import FreshNoise
from tomotif.engine.model_folder import CARD, Known, ModelCard, load_model, read_card, save_model
from tomotif.engine.predict import openvino_predictor, predict_boxes
from tomotif.io.environment import cpu_count
from tomotif.io.files import replacing
from tomotif.io.structure import load_structure
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.pattern_clusters import PatternClusterSettings, cluster_views
from tomotif.tasks.simulate import (
    FilamentSettings,
    GoldSettings,
    MembraneSettings,
    SubtomogramSettings,
    TomogramSettings,
    build_specimen,
    simulate_subtomograms,
)
from tomotif.tasks.simulate.assemblies import random_assembly
from tomotif.tasks.simulate.templates import render, template
from tomotif.tasks.simulate.tomogram import Camera, signal_levels

RESOURCES = Path("src/tomotif/resources/encoders")
LEARNED_KEPT, HELD_KEPT = 2600, 300
"""Embeddings kept with an encoder, of particles that were learned from and of others."""
UNSEEN = ("1bxn", "1oel", "3j9i", "4v8r", "2fha", "1qvr", "5tbz", "3cf3")
"""Complexes of the card's scores."""
ABOUT = "features for `tomotif mine`: random assemblies, membranes, filaments and background told apart"
LIMITS = (
    "trained on simulated tomograms alone: ±60°, ±50° and ±40° about y, phase-flipped, defocus 2 to 6 µm",
    "its classes are random assemblies, so their names mean nothing",
)
SNRS = (0.2, 0.1, 0.05, 0.03)
SCENERY = ("membrane", "actin")
"""Classes beside the assemblies and background."""
MEMBRANES = (
    MembraneSettings(kind="vesicle", count=2, radius=(200.0, 400.0)),
    MembraneSettings(kind="plane", count=1),
)
"""A tomogram has one of these kinds."""


@dataclass(frozen=True)
class Size:
    """How many assemblies there are, in how many tomograms, how many in each of these, and boxes of each there."""

    pool: int = 240
    tomograms: int = 48
    each: int = 20
    boxes: int = 35
    scenery: int = 40
    shape: tuple[int, int, int] = (128, 256, 256)
    voxel_size: float = 12.0
    box_px: int = 32
    passes: int = 6


SIZES = {"12A": Size(), "20A": Size(shape=(96, 192, 192), voxel_size=20.0, box_px=24, passes=4)}


@dataclass(frozen=True, eq=False)
class Made:
    """Boxes of one tomogram: signal and noise apart, the particle of each alone, and their classes."""

    signal: NDArray[np.float16]
    noise: NDArray[np.float16]
    alone: NDArray[np.float16]
    classes: NDArray[np.str_]
    tomogram: NDArray[np.str_]


def assemblies(size: Size) -> list[Structure]:
    """All random assemblies."""
    rng = np.random.default_rng(0)
    return [random_assembly(rng, f"a{i:03d}") for i in range(size.pool)]


def settings_of(number: int, size: Size, rng: np.random.Generator) -> TomogramSettings:
    """Of one tomogram."""
    tilt = float(data.TILTS[number % len(data.TILTS)])
    return data.SETTINGS.model_copy(
        update={
            "tilt_range": (-tilt, tilt),
            "shape": size.shape,
            "voxel_size": size.voxel_size,
            "occupancy": float(rng.uniform(0.10, 0.14)),
            "distractors": (),
            "distractor_occupancy": 0.0,
            "membranes": (MEMBRANES[number // 3 % len(MEMBRANES)],),
            "filaments": (FilamentSettings(kind="actin", count=3, length=(600.0, 1500.0)),),
            "gold": (GoldSettings(count=2),),
        }
    )


def make(number: int, size: Size, structures: list[Structure]) -> Made:
    """Simulate one tomogram and cut its boxes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng((7, number))
    # every assembly in as many tomograms: the pool, shuffled, again and again
    order = np.concatenate([np.random.default_rng((3, k)).permutation(size.pool) for k in range(size.tomograms)])
    here = [structures[i] for i in np.unique(order[number * size.each : (number + 1) * size.each])]
    settings, name = settings_of(number, size, rng), f"t{number:03d}"
    defocus = float(rng.uniform(*settings.defocus_um))
    specimen = build_specimen(here, settings, rng, name)
    _, deviation = signal_levels(specimen, here, settings, defocus)
    camera = Camera.draw(settings, defocus, deviation, rng)
    tomograms = [
        Tomogram(Volume(volume, size.voxel_size), name, settings.missing_wedge, settings.contrast)
        for volume in (camera.reconstruct(camera.expose(specimen.density)), camera.reconstruct(camera.noise(rng)))
    ]
    like = data.Size(boxes=size.boxes, classes=tuple(s.name for s in here), box_px=size.box_px)
    places = Particles.concat(
        [
            data.chosen_places(specimen.particles, tomograms[0], like, rng),
            scenery_places(specimen.classes, tomograms[0], size, rng),
        ]
    )
    signal, noise = (data.raw_boxes(places, one, size.box_px) / np.float32(deviation) for one in tomograms)
    names = places["class"].to_numpy().astype(str)
    ready = [template(one, size.voxel_size, settings.resolution) for one in here]
    index = {one.name: i for i, one in enumerate(here)}
    drawn = torch.zeros(signal.shape)
    which = np.array([index.get(one, -1) for one in names])
    render(ready, which, places.orientation, data.offsets_px(places, size.voxel_size), np.arange(len(names)), drawn)
    return Made(
        signal.astype(np.float16),
        noise.astype(np.float16),
        drawn.numpy().astype(np.float16),
        names,
        np.full(len(names), name),
    )


def scenery_places(labels: Labels, tomogram: Tomogram, size: Size, rng: np.random.Generator) -> Particles:
    """Places on membranes and filaments, a little off."""
    margin = size.box_px // 2 + 3
    shape = np.array(tomogram.shape)
    centres, names = [], []
    for number, name in labels.names.items():
        if name not in SCENERY:
            continue
        voxels = np.argwhere(labels.data == number)
        fit = voxels[np.all((voxels >= margin) & (voxels < shape - margin), axis=1)]
        centres.append(rng.permutation(fit)[: size.scenery])
        names += [name] * len(centres[-1])
    centre = np.concatenate(centres) * tomogram.voxel_size if names else np.zeros((0, 3))
    where = centre + rng.uniform(-data.OFFSET_PX, data.OFFSET_PX, centre.shape) * tomogram.voxel_size
    of_centre = dict(zip(data.CENTRE, centre.T, strict=True))
    pose = Rotation.from_quat(np.tile([0.0, 0.0, 0.0, 1.0], (len(names), 1)))
    return Particles.create(tomogram.name, where, pose, columns={"class": names, **of_centre})


def kept(number: int, size: Size, structures: list[Structure], folder: Path) -> Path:
    """Boxes of one tomogram in a file, made now or earlier."""
    path = folder / f"{number:03d}.npz"
    if not path.exists():
        made = make(number, size, structures)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **{field.name: getattr(made, field.name) for field in fields(Made)})
    return path


def gathered(paths: list[Path], folder: Path) -> Made:
    """Boxes of all tomograms, mapped from files: they are more than fit into memory."""
    words = {
        field: np.concatenate([np.load(path, allow_pickle=False)[field] for path in paths])
        for field in ("classes", "tomogram")
    }
    boxes = {field: mapped(field, paths, len(words["classes"]), folder) for field in ("signal", "noise", "alone")}
    return Made(**boxes, **words)


def mapped(field: str, paths: list[Path], count: int, folder: Path) -> NDArray[np.float16]:
    """One field of all tomograms, written tomogram by tomogram."""
    target, start = folder / f"{field}.npy", 0
    for path in paths:
        part = np.load(path, allow_pickle=False)[field]
        if not start:
            made = np.lib.format.open_memmap(target, "w+", part.dtype, (count, *part.shape[1:]))
        made[start : start + len(part)] = part
        start += len(part)
    made.flush()
    found: NDArray[np.float16] = np.load(target, mmap_mode="r", allow_pickle=False)
    return found


def train(size: Size, folder: Path, workers: int) -> ModelCard:
    """Simulate all tomograms and train the encoder; a killed run continues."""
    boxes_in = folder / "boxes"
    boxes_in.mkdir(parents=True, exist_ok=True)
    one = partial(kept, size=size, structures=assemblies(size), folder=boxes_in)
    with ProcessPoolExecutor(workers) as pool:
        made = gathered(list(pool.map(one, range(size.tomograms))), boxes_in)
    columns = {"class": made.classes, "stack_index": range(len(made.classes))}
    particles = Particles.create(made.tomogram.tolist(), np.zeros((len(made.classes), 3)), columns=columns)
    widest = MissingWedge(-float(data.TILTS[0]), float(data.TILTS[0]))
    boxes = Subtomograms(particles, made.signal, size.voxel_size, widest)
    levels = tuple(float(np.sqrt(data.UNIT_SNR / snr)) for snr in SNRS)
    noise = FreshNoise(made.noise, np.unique(made.tomogram, return_inverse=True)[1], levels)
    settings = ClassifierSettings(epochs=size.passes, validation_fraction=0.08, patience=size.passes)
    return train_classifier(boxes, settings, folder, noise=noise, density=made.alone, progress=False)


def some(known: Known) -> Known:
    """Fewer of the particles, drawn at random: enough to tell in which directions classes differ."""
    rng = np.random.default_rng(0)
    learned = rng.permutation(len(known.learned))[:LEARNED_KEPT]
    held = rng.permutation(len(known.held))[:HELD_KEPT]
    return Known(known.learned[learned], known.learned_class[learned], known.held[held], known.held_class[held])


def v_measure(model: Path, snr: float) -> float:
    """How well kinds among complexes that nobody showed the encoder are found."""
    card = read_card(model)
    settings = SubtomogramSettings(
        count=100,
        background=42,
        snr=snr,
        snr_reference="each",
        max_shift_px=1.0,
        voxel_size=card.voxel_size,
        box_px=card.box_px,
    )
    boxes = simulate_subtomograms([load_structure(name) for name in UNSEEN], settings, np.random.default_rng(42))
    predict = openvino_predictor(model, 32, "embedding")
    turns = wedge_safe_flips(boxes.missing_wedge)
    views = np.stack([predict_boxes(predict, boxes.stack, 32, [turn]) for turn in turns])
    found = cluster_views(views, Known.load(model), PatternClusterSettings()).labels
    return round(float(v_measure_score(boxes.particles["class"].astype(str), found)), 3)


def ship(name: str, trained: Path) -> None:
    """Write a trained encoder into the package."""
    network, card = load_model(trained)
    target = RESOURCES / name
    some(Known.load(trained)).save(target)
    save_model(target, network, card.model_copy(update={"about": ABOUT, "limits": LIMITS}), half=True)
    scores = {f"V-measure of 8 unseen complexes at SNR {snr:g}": v_measure(target, snr) for snr in (0.1, 0.05)}
    save_model(target, network, read_card(target).model_copy(update={"scores": scores}), half=True)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB; {scores}")  # noqa: T201


def main() -> None:
    """Both, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SIZES), help=f"of {', '.join(SIZES)}")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tomotif_encoders")
    for name in parser.parse_args().names:
        folder = parser.parse_args().folder / name
        if not (folder / "model" / CARD).exists():
            train(SIZES[name], folder, cpu_count())
        ship(name, folder / "model")


if __name__ == "__main__":
    main()
