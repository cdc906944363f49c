"""Which features of our simulator make a network better on tomograms of an independent simulator, acryo's.

One network is trained for every feature turned off, on boxes cut from our simulated tomograms, and tested on boxes
cut from acryo's (see ``benchmarks/acryo_simulator.py``): two conditions, three noise levels, the same boxes for all
networks. The gain of a feature is the accuracy with everything on minus the accuracy without it, in points, the mean
and the standard deviation over seeds of the training. Accuracy is the mean recall of six complexes and background.

Tomograms of the training draw how crowded they are, which is a feature of its own: complexes that keep out of each
other's way scatter less at low frequency the denser they lie (the structure factor of hard bodies).

``gap_before`` is the accuracy of the network with everything on in held-out tomograms of our own simulator minus that
on acryo's ``cell`` condition at the same SNR; ``gap_after`` the same for the domain-randomised training. Boxes are cut
at true places with offsets up to 2 voxels: this measures classification, not picking.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import acryo_simulator as acryo
from benchmarks import harness
from tomotif.core import BACKGROUND, Particles, Subtomograms, Tomogram
from tomotif.engine.model_folder import read_card
from tomotif.engine.predict import openvino_predictor, predict_boxes
from tomotif.io.structure import load_structure
from tomotif.pipelines.simulate import TomogramSpec, read_spec
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.extract import ExtractSettings, extract
from tomotif.tasks.simulate import (
    FilamentSettings,
    GoldSettings,
    MembraneSettings,
    TomogramSettings,
    simulate_tomogram,
)

NAME = "sim_ablation"
CLASSES = ("4v5d", "4v8r", "3j9i", "1oel", "1bxn", "2fha")
DISTRACTORS = ("3cf3", "1gyt", "5tbz")
UNKNOWN = ("1qvr", "1wcm", "1aon")
"""Complexes in the test tomograms that are no class; training has others."""
SEEDS = (0, 1)
BOX = 32
OFFSET_PX = 2.0
CONDITIONS = {c.name: c for c in (acryo.PLAIN, acryo.CELL)}
_HELD_OUT, _TESTED = 10_000, 20_000
"""Added to seeds, so that no tomogram is in two parts of the study."""

BASE: dict[str, Any] = {
    "shape": (96, 192, 192),
    "distractors": DISTRACTORS,
    "distractor_occupancy": 0.02,
    "membranes": (MembraneSettings(kind="vesicle", count=1, radius=(150.0, 300.0)),),
    "filaments": (FilamentSettings(kind="actin", count=3, length=(600.0, 1500.0)),),
    "gold": (GoldSettings(count=3),),
    "ice_thickness": 1000.0,
    "contrast_spread": 0.2,
    "defocus_um": (2.0, 6.0),
    "ctf": True,
    "phase_flip": True,
    "exposure": 3.0,
    "mtf": 0.6,
    "noise_decay": 5.0,
    "defocus_jitter_um": 0.1,
    "shift_jitter": 6.0,
    "axis_jitter": 0.3,
    "tilt_jitter": 0.5,
    "snr": 0.1,
}
"""Everything on, but for the occupancy."""

OCCUPANCY = (0.04, 0.17)
"""Range of the classes' occupancy; each tomogram draws its own."""

OFF: dict[str, dict[str, Any]] = {
    "neighbours": {"counts": (32,), "distractor_occupancy": 0.005},
    "occupancy_range": {"occupancy": OCCUPANCY[1]},
    "distractors": {"distractors": (), "distractor_occupancy": 0.0},
    "scenery": {"membranes": (), "filaments": (), "gold": ()},
    "ice_thickness": {"ice_thickness": None},
    "contrast_spread": {"contrast_spread": 0.0},
    "ctf": {"ctf": False},
    "phase_flip": {"phase_flip": False},
    "defocus_range": {"defocus_um": (4.0, 4.0)},
    "radiation_damage": {"exposure": 0.0},
    "camera": {"mtf": 1.0, "noise_decay": 0.0},
    "alignment_errors": {"shift_jitter": 0.0, "axis_jitter": 0.0, "tilt_jitter": 0.0, "defocus_jitter_um": 0.0},
}
"""What turns each feature off; `neighbours` keeps as many boxes as the others have, at a sixth of the occupancy."""

NONE: dict[str, Any] = {key: value for update in OFF.values() for key, value in update.items()}
"""All off: the missing wedge and white noise."""


@dataclass(frozen=True)
class Plan:
    """How large the study is."""

    features: tuple[str, ...]
    seeds: tuple[int, ...]
    tomograms: int
    boxes: int
    """Training boxes of each class from a tomogram; twice as many of the background."""
    settings: dict[str, Any]
    """What differs from the settings of every variant."""
    classifier: ClassifierSettings
    held_out: int
    """Tomograms of our own to test on."""
    tested: int
    """Tomograms of acryo's, of each condition."""
    size: acryo.Size
    snrs: tuple[float, ...]
    prefix: str
    """Of the cells' names."""


FULL = Plan(
    features=tuple(OFF),
    seeds=SEEDS,
    tomograms=16,
    boxes=20,
    settings={},
    classifier=ClassifierSettings(model="motif3d", epochs=8),
    held_out=8,
    tested=4,
    size=acryo.Size(),
    snrs=(0.1, 0.03, 0.01),
    prefix="",
)
QUICK = Plan(
    features=("ctf", "neighbours"),
    seeds=(0,),
    tomograms=3,
    boxes=6,
    settings={"shape": (64, 128, 128), "ice_thickness": None},
    classifier=ClassifierSettings(model="motif3d", epochs=12),
    held_out=1,
    tested=1,
    size=acryo.Size(shape=(65, 97, 97), thickness_px=49, count=6, distractors=2),
    snrs=(0.1,),
    prefix="quick_",
)


def plan_of(prefix: str) -> Plan:
    """The plan whose cells have this prefix; what all cells share is kept by it."""
    return QUICK if prefix else FULL


# ---------------------------------------------------------------------------------------------- variants


def variants(plan: Plan) -> dict[str, dict[str, Any]]:
    """Settings of every variant that does not change from tomogram to tomogram."""
    off = {f"no_{name}": {**BASE, **OFF[name], **plan.settings} for name in plan.features}
    return {"base": {**BASE, **plan.settings}, **off, "none": {**BASE, **NONE, **plan.settings}}


def settings_of(variant: str, plan: Plan, rng: np.random.Generator) -> TomogramSettings:
    """Settings of one tomogram of a variant; the domain-randomised training is that of the preset `randomised`."""
    occupancy = {"occupancy": float(rng.uniform(*OCCUPANCY))}
    if variant != "domain_randomised":
        return TomogramSettings(**{**occupancy, **variants(plan)[variant]})
    preset = read_spec(["randomised"])
    return TomogramSettings(**{**BASE, **scenery_of(preset), **preset.draw(rng), **plan.settings})


def scenery_of(preset: TomogramSpec) -> dict[str, Any]:
    """What the domain-randomised training takes from its preset besides what varies."""
    return {name: getattr(preset, name) for name in ("defocus_um", "membranes", "filaments", "gold")}


def digest(variant: str, plan: Plan) -> str:
    """What decides a cell besides its name, in eight letters: a change of the study makes new cells."""
    preset = read_spec(["randomised"])
    settings = variants(plan).get(variant, (BASE, scenery_of(preset), preset.vary))
    others = ("seeds", "features", "classifier")  # how many cells there are changes none of them
    same = {name: value for name, value in vars(plan).items() if name not in others}
    chosen = plan.classifier.model_dump(exclude_unset=True)
    return blake2b(
        repr((settings, same, chosen, CONDITIONS, UNKNOWN, OCCUPANCY, OFFSET_PX)).encode(), digest_size=4
    ).hexdigest()


# ---------------------------------------------------------------------------------------------- boxes


def inside(position: NDArray[np.float64], tomogram: Tomogram) -> NDArray[np.bool_]:
    """Which places (n, 3) in Å are so far from the border that a box with its offset lies wholly inside."""
    margin = (BOX // 2 + OFFSET_PX + 1) * tomogram.voxel_size
    extent = np.array(tomogram.shape) * tomogram.voxel_size
    return np.all((position >= margin) & (position <= extent - margin), axis=1)


def background_places(
    truth: Particles, tomogram: Tomogram, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Places (count, 3) in Å that are in no particle of a class: distractors up to the half, the rest anywhere.

    Raises
    ------
    RuntimeError
        When a tomogram is so full that there are none.
    """
    known = truth.take(truth["class"].isin(CLASSES).to_numpy())
    others = truth.position[(truth["class"] == "distractor").to_numpy()]
    chosen = rng.permutation(others[inside(others, tomogram)])[: count // 2]
    anywhere = rng.uniform(0, np.array(tomogram.shape) * tomogram.voxel_size, (200 * count, 3))
    anywhere = anywhere[inside(anywhere, tomogram)]
    reach = known["radius"].to_numpy(np.float64) + OFFSET_PX * tomogram.voxel_size
    apart = np.linalg.norm(anywhere[:, None] - known.position[None], axis=2) > reach
    places = np.concatenate([chosen, anywhere[apart.all(axis=1)]])[:count]
    if len(places) < count:
        raise RuntimeError(f"expected {count} places of background in {tomogram.name}, found {len(places)}")
    return places


def boxes_of(
    tomogram: Tomogram, truth: Particles, count: int | None, rng: np.random.Generator
) -> tuple[Particles, NDArray[np.float16]]:
    """Boxes off their particles by up to two voxels along each axis, z-scored and bright, with their classes.

    Parameters
    ----------
    tomogram, truth
        Volume, and its particles with ``class`` and ``radius``.
    count
        Boxes of each class, and twice as many of the background; None: all there are, of the background the mean.
    rng
        Decides which, and the offsets.
    """
    fits = inside(truth.position, tomogram)
    rows = [rng.permutation(np.flatnonzero(fits & (truth["class"] == name).to_numpy()))[:count] for name in CLASSES]
    chosen = np.concatenate(rows)
    background = 2 * count if count is not None else round(len(chosen) / len(CLASSES))
    empty = background_places(truth, tomogram, background, rng)
    where = np.concatenate([truth.position[chosen], empty])
    where += rng.uniform(-OFFSET_PX, OFFSET_PX, where.shape) * tomogram.voxel_size
    labels = [*truth["class"].to_numpy()[chosen], *[BACKGROUND] * len(empty)]
    particles = Particles.create(tomogram.name, where, columns={"class": labels})
    stack = np.empty((len(particles), BOX, BOX, BOX), np.float16)
    return extract(particles, [tomogram], ExtractSettings(box_px=BOX), stack), stack


def join(parts: Sequence[tuple[Particles, NDArray[np.float16]]], like: Tomogram) -> Subtomograms:
    """Boxes of several tomograms as one stack."""
    particles = Particles.concat([p for p, _ in parts])
    stack = np.concatenate([s for _, s in parts])
    particles = particles.with_columns(stack_index=np.arange(len(stack)))
    return Subtomograms(particles, stack, like.voxel_size, like.missing_wedge)


def simulated_boxes(variant: str, plan: Plan, seed: int, tomograms: int) -> Subtomograms:
    """Boxes from our own simulated tomograms of a variant, two made at a time."""
    structures = [load_structure(name) for name in CLASSES]

    def boxes(number: int) -> tuple[Particles, NDArray[np.float16], Tomogram]:
        rng = np.random.default_rng((seed, number))
        settings = settings_of(variant, plan, rng)
        made = simulate_tomogram(structures, settings, rng, f"ours_{number:03d}", noise_free=False)
        return *boxes_of(made.tomogram, made.particles, plan.boxes, rng), made.tomogram

    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(boxes, range(tomograms)))
    return join([(particles, stack) for particles, stack, _ in made], made[0][2])


@lru_cache(maxsize=1)
def held_out_boxes(prefix: str) -> Subtomograms:
    """Boxes from our own tomograms with everything on, which no training has seen."""
    plan = plan_of(prefix)
    return simulated_boxes("base", plan, _HELD_OUT, plan.held_out)


def tested_specimen(condition: acryo.Condition, plan: Plan, number: int) -> acryo.Specimen:
    """One of acryo's noise-free tilt series; a function of its own, for it runs in a process of its own."""
    rng = np.random.default_rng((_TESTED, number))
    name = f"{condition.name}_{number:03d}"
    return acryo.make_specimen(name, CLASSES, UNKNOWN, condition, plan.size, rng)


@lru_cache(maxsize=1)
def tested_boxes(prefix: str) -> dict[tuple[str, float], Subtomograms]:
    """Boxes from acryo's tomograms, of every condition and SNR; at all SNR of the same specimens and places."""
    plan = plan_of(prefix)
    jobs = [(condition, plan, number) for condition in CONDITIONS.values() for number in range(plan.tested)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        specimens = list(pool.map(tested_specimen, *zip(*jobs, strict=True)))
    made: dict[tuple[str, float], Subtomograms] = {}
    for condition in CONDITIONS.values():
        for snr in plan.snrs:
            parts = []
            for number, specimen in enumerate(s for s, job in zip(specimens, jobs, strict=True) if job[0] is condition):
                rng = np.random.default_rng((_TESTED, number, 1))
                noise = acryo.noise_for(snr, "1bxn", condition, plan.size, specimen.defocus_um)
                tomogram = acryo.reconstruct(specimen, condition, plan.size, noise, rng)
                parts.append(boxes_of(tomogram, specimen.particles, None, rng))
            made[condition.name, snr] = join(parts, tomogram)
    return made


# ---------------------------------------------------------------------------------------------- accuracy


def mean_recall(truth: Sequence[str], found: Sequence[str]) -> float:
    """Mean over the true classes of the fraction of their boxes that were named right.

    >>> mean_recall(["a", "a", "a", "a", "b", "b"], ["a", "a", "a", "b", "b", "b"])
    0.875
    """
    true, named = np.asarray(truth, dtype=str), np.asarray(found, dtype=str)
    return float(np.mean([np.mean(named[true == name] == name) for name in np.unique(true)]))


def recalls(truth: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Fraction of each class's boxes that were named right."""
    true, named = np.asarray(truth, dtype=str), np.asarray(found, dtype=str)
    return {str(name): round(float(np.mean(named[true == name] == name)), 4) for name in np.unique(true)}


def classes_of(boxes: Subtomograms) -> list[str]:
    """The true class of every box."""
    return boxes.particles["class"].astype(str).tolist()


def named_by(model: Path, tested: Mapping[str, Subtomograms]) -> dict[str, list[str]]:
    """What a network calls the boxes of each test."""
    predict, classes = openvino_predictor(model, 32), np.array(read_card(model).classes)
    return {
        key: classes[predict_boxes(predict, boxes.stack, 32).argmax(axis=1)].tolist() for key, boxes in tested.items()
    }


def accuracies(model: Path, tested: Mapping[str, Subtomograms]) -> dict[str, float]:
    """Accuracy of a network in each test."""
    named = named_by(model, tested)
    return {key: round(mean_recall(classes_of(boxes), named[key]), 4) for key, boxes in tested.items()}


def one(variant: str, seed: int, plan: Plan) -> dict[str, Any]:
    """Train one network and test it: accuracies in held-out tomograms of our own and in acryo's."""
    training = simulated_boxes(variant, plan, seed, plan.tomograms)
    settings = plan.classifier.model_copy(update={"seed": seed})
    tested = {"ours": held_out_boxes(plan.prefix)}
    tested |= {f"{name} {snr:g}": boxes for (name, snr), boxes in tested_boxes(plan.prefix).items()}
    with tempfile.TemporaryDirectory() as folder:
        card = train_classifier(training, settings, Path(folder), progress=False)
        named = named_by(Path(folder) / "model", tested)
    truth = {key: classes_of(boxes) for key, boxes in tested.items()}
    return {
        "variant": variant,
        "seed": seed,
        "training_boxes": len(training),
        "validation_accuracy": card.validation_accuracy,
        "accuracy": {key: round(mean_recall(truth[key], named[key]), 4) for key in tested},
        "recall": {key: recalls(truth[key], named[key]) for key in tested},
        "test_boxes": {key: len(boxes) for key, boxes in tested.items()},
    }


# ---------------------------------------------------------------------------------------------- the study

Cells = dict[str, list[dict[str, Any]]]


def acryo_accuracy(cell: dict[str, Any], condition: str | None = None, snr: float | None = None) -> float:
    """Accuracy on acryo's tomograms: the mean over conditions and SNR, or of one of them."""
    wanted = [condition] if condition else list(CONDITIONS)
    keys = [k for k in cell["accuracy"] if k.split()[0] in wanted and (snr is None or k.split()[-1] == f"{snr:g}")]
    return float(np.mean([cell["accuracy"][key] for key in keys]))


def gain(cells: Cells, variant: str, accuracy: Callable[[dict[str, Any]], float]) -> dict[str, float]:
    """Points that are lost without a feature: mean and standard deviation over seeds, each against its own base."""
    lost = [100 * (accuracy(a) - accuracy(b)) for a, b in zip(cells["base"], cells[variant], strict=True)]
    return {"gain": round(float(np.mean(lost)), 2), "sd": round(float(np.std(lost, ddof=min(1, len(lost) - 1))), 2)}


def gap(cells: list[dict[str, Any]], snr: float) -> dict[str, float]:
    """Points by which our own held-out tomograms are easier than acryo's of the same SNR with everything on."""
    lost = [100 * (c["accuracy"]["ours"] - acryo_accuracy(c, "cell", snr)) for c in cells]
    return {"mean": round(float(np.mean(lost)), 2), "sd": round(float(np.std(lost, ddof=min(1, len(lost) - 1))), 2)}


def summary(cells: Cells, features: Sequence[str]) -> dict[str, Any]:
    """Gains and gaps from the cells of all variants, seed by seed."""
    rows = []
    for name in (*features, "everything"):
        variant = "none" if name == "everything" else f"no_{name}"
        row = {"name": name, **gain(cells, variant, acryo_accuracy)}
        for condition in CONDITIONS:
            row[f"gain_{condition}"] = gain(cells, variant, partial(acryo_accuracy, condition=condition))["gain"]
        rows.append(row)
    before, after = gap(cells["base"], BASE["snr"]), gap(cells["domain_randomised"], BASE["snr"])
    return {
        "features": rows,
        "gap_before": before["mean"],
        "gap_before_sd": before["sd"],
        "gap_after": after["mean"],
        "gap_after_sd": after["sd"],
        "randomisation_gain": -gain(cells, "domain_randomised", acryo_accuracy)["gain"],
        "accuracy": {
            variant: {
                key: round(float(np.mean([c["accuracy"][key] for c in found])), 4) for key in found[0]["accuracy"]
            }
            for variant, found in cells.items()
        },
    }


def main(quick: bool) -> dict[str, Any]:
    """Train and test every variant with every seed."""
    plan = QUICK if quick else FULL
    names = [*variants(plan), "domain_randomised"]
    cells: Cells = {name: [] for name in names}
    for seed in plan.seeds:
        for name in names:
            key = f"{plan.prefix}{name}_seed{seed}_{digest(name, plan)}"
            cells[name].append(harness.cell(NAME, key, partial(one, name, seed, plan)))
    return {
        **summary(cells, plan.features),
        "test_boxes": cells["base"][0]["test_boxes"],
        "training_boxes": cells["base"][0]["training_boxes"],
        "cell_seconds": round(float(np.mean([c["wall_s"] for found in cells.values() for c in found])), 1),
    }


if __name__ == "__main__":
    harness.run(NAME, main, seeds=SEEDS)
