"""How little features change with pose and missing wedge, against what they differ by between complexes.

The spread ratio: the square root of the features' variance over renderings of one complex (mean over complexes) over
their variance between the complexes' means. 16 renderings of a particle, eight particles of each of ten complexes, at
SNR 0.1 of each, alone in the box:

- ``rigid``: another rotation, shift (up to 2 voxels), defocus and noise each time, ±60° about y.
- ``wedge``: the tilt range (±60°, ±50° or ±40°) and the tilt axis (y or x) change as well.

All networks learn from the same boxes of that kind, of six wedges, with none to two neighbours, for as many samples and
with the better of two learning rates; ``ours`` also draws the particle alone in training, and averages over the turns
that keep the wedge. ``logits``, one value a class, are the structural features of Xu et al. 2017, Bioinformatics
33:i13; ``probabilities`` and ``embedding`` have the ratios after and before. ``discriminants`` is the embedding along
the directions in which the known classes differ, in units of the spread inside them (`tomotif features --layer
discriminants`): the value at the top for every method, and what `discover` and `mine` look at. ``accuracy`` is that of
the renderings. ``unseen``: complexes that no network knows. ``ours_over_dsrf3d`` is the ratio of ours over that of
dsrf3d, space by space. ``dsrf3d`` learns in bfloat16, and ``cb3d_gap`` takes part in the quick run only, or they would
take hours. ``inception3d`` has no part: its embedding of 351,520 values has no covariance that fits into memory.
"""

from __future__ import annotations

import inspect
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import classify, harness
from benchmarks import classify_data as data
from tomotif import models
from tomotif.core import MissingWedge, Particles, Subtomograms
from tomotif.core.missing_wedge import TiltAxis
from tomotif.data.augment import Flip, wedge_safe_flips
from tomotif.engine.model_folder import Known, read_card
from tomotif.engine.predict import NO_FLIPS, Layer, predict_boxes
from tomotif.io.structure import load_structure
from tomotif.ops.calibration import softmax
from tomotif.ops.novelty import ClassGaussians
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

NAME = "features"
METHODS = {"ours": "motif3d_rif", "cb3d_gap": "cb3d_gap", "dsrf3d": "dsrf3d"}
OURS, PUBLISHED = "ours", "dsrf3d"
RENDERINGS, PARTICLES = 16, 8
SNR = 0.1
AXES: tuple[TiltAxis, ...] = ("y", "x")
WEDGES = [(tilt, axis) for tilt in data.TILTS for axis in AXES]
LEARNING_RATES = (6e-4, 2e-3)
TRIAL = 0.25
"""Share of the boxes that each learning rate is tried with, once."""
RATE = {"dsrf3d": 1e-4}
"""Learning rate of the network without batch normalisation, which learns nothing at the others."""


@dataclass(frozen=True)
class Size:
    """How large a run is: training boxes of each complex and wedge (as many of background), epochs, methods."""

    train: int = 200
    epochs: int = 3
    methods: tuple[str, ...] = ("ours", "dsrf3d")


FULL, QUICK = Size(), Size(train=20, epochs=4, methods=("ours", "cb3d_gap"))


def spread_ratio(features: NDArray[np.floating], names: NDArray[np.str_]) -> float:
    """Spread within complexes over the spread between them, √(tr Σ_within / tr Σ_between).

    >>> spread_ratio(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array(["a", "a", "b", "b"]))
    0.2
    """
    groups = [np.asarray(features[names == name], np.float64) for name in np.unique(names)]
    within = np.mean([group.var(axis=0).sum() for group in groups])
    between = np.stack([group.mean(axis=0) for group in groups]).var(axis=0).sum()
    return float(np.sqrt(within / between))


# ---------------------------------------------------------------------------------------------- boxes


def wedge_settings(tilt: int, axis: TiltAxis, **settings: Any) -> SubtomogramSettings:
    """Of boxes with one wedge."""
    return SubtomogramSettings(snr=SNR, tilt_range=(-float(tilt), float(tilt)), tilt_axis=axis, **settings)


def training_boxes(count: int) -> tuple[Subtomograms, NDArray[np.float16]]:
    """Boxes of all wedges, each of a tomogram's name of its own, and the particle of each alone."""
    structures = [load_structure(name) for name in data.CLASSES]
    parts, alone = [], []
    for number, (tilt, axis) in enumerate(WEDGES):
        settings = wedge_settings(tilt, axis, count=count, background=count, neighbours=number % 3)
        density = np.empty(((len(structures) + 1) * count, *(settings.box_px,) * 3), np.float16)
        rng = np.random.default_rng((1, number))
        parts.append(simulate_subtomograms(structures, settings, rng, name=f"wedge{number}", density=density))
        alone.append(density)
    particles = Particles.concat([part.particles for part in parts])
    groups = np.array([f"part{i % 20:02d}" for i in range(len(particles))], dtype=object)  # to hold some out of each
    particles = replace(particles, tomogram=groups).with_columns(stack_index=np.arange(len(particles)))
    stack = np.concatenate([np.asarray(part.stack) for part in parts])
    widest = MissingWedge(-data.TILTS[0], data.TILTS[0])
    return Subtomograms(particles, stack, parts[0].voxel_size, widest), np.concatenate(alone)


def rendered(kind: str, classes: tuple[str, ...]) -> tuple[NDArray[np.float16], NDArray[np.str_]]:
    """All renderings for one of the ratios, and whose they are."""
    wedges = WEDGES[:1] if kind == "rigid" else WEDGES
    count = -(-RENDERINGS * PARTICLES // len(wedges))
    structures = [load_structure(name) for name in classes]
    made = [
        simulate_subtomograms(structures, wedge_settings(tilt, axis, count=count), np.random.default_rng(seed))
        for seed, (tilt, axis) in enumerate(wedges)
    ]
    names = np.concatenate([part.particles["class"].to_numpy().astype(str) for part in made])
    return np.concatenate([np.asarray(part.stack) for part in made]), names


# ---------------------------------------------------------------------------------------------- methods


def trained(method: str, size: Size, folder: Path) -> Path:
    """Train a network with the better of two learning rates; gives the model folder."""
    boxes, alone = training_boxes(size.train)
    density = alone if method == OURS else None
    some = np.sort(np.random.default_rng(0).permutation(len(boxes))[: round(TRIAL * len(boxes))])
    fewer = replace(boxes, particles=boxes.particles.take(some), stack=np.asarray(boxes.stack)[some])

    def accuracy(rate: float) -> float:
        settings = ClassifierSettings(model=METHODS[method], epochs=1, learning_rate=rate)
        given = None if density is None else density[some]
        card = train_classifier(fewer, settings, folder / f"trial_{rate:g}", density=given, progress=False)
        return card.validation_accuracy or 0.0

    settings = ClassifierSettings(
        model=METHODS[method],
        epochs=size.epochs,
        learning_rate=RATE.get(method) or max(LEARNING_RATES, key=accuracy),
        precision="bfloat16" if method in classify.HEAVY else "float32",
    )
    train_classifier(boxes, settings, folder / "chosen", density=density, progress=False)
    return folder / "chosen" / "model"


def one(method: str, size: Size) -> dict[str, Any]:
    """The spread ratios of one method."""
    flips: list[Flip] | tuple[Flip, ...] = NO_FLIPS
    if method == OURS:
        flips = wedge_safe_flips(MissingWedge(-data.TILTS[0], data.TILTS[0]))  # the same for all wedges
    with tempfile.TemporaryDirectory() as folder:
        model = trained(method, size, Path(folder))
        card, known = read_card(model), Known.load(model)
        gaussians = ClassGaussians.of(known.learned, known.learned_class)

        def through(layer: Layer, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
            return predict_boxes(classify.fastest_predictor(model, 32, layer), boxes, 32, flips)

        numbers: dict[str, Any] = {"learning_rate": card.training["learning_rate"]}
        numbers["samples"] = int(card.training["particles"] or 0) * size.epochs
        for where, classes in (("known", data.CLASSES), ("unseen", classify.UNSEEN)):
            for kind in ("rigid", "wedge"):
                boxes, names = rendered(kind, classes)
                logits = through("logits", boxes)
                embedding = through("embedding", boxes)
                numbers[f"{where}_{kind}"] = {
                    "discriminants": round(spread_ratio(gaussians.discriminants(embedding), names), 4),
                    "logits": round(spread_ratio(logits, names), 4),
                    "probabilities": round(spread_ratio(softmax(logits, card.temperature), names), 4),
                    "embedding": round(spread_ratio(embedding, names), 4),
                }
                if where == "known":
                    found = np.array(card.classes)[logits.argmax(axis=1)]
                    numbers[f"{where}_{kind}"]["accuracy"] = round(float(np.mean(found == names)), 4)
    return numbers


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios of the discriminants by method, and ours over the published network's in every space."""
    ratios = ("known_rigid", "known_wedge", "unseen_rigid", "unseen_wedge")
    flat = {
        method: {**{k: cell[k]["discriminants"] for k in ratios}, "details": cell} for method, cell in cells.items()
    }
    if PUBLISHED not in flat:
        return flat
    kinds = ("known_rigid", "known_wedge")
    share = {
        layer: {k: round(cells[OURS][k][layer] / cells[PUBLISHED][k][layer], 3) for k in kinds}
        for layer in ("discriminants", "logits", "probabilities", "embedding")
    }
    return {**flat, f"ours_over_{PUBLISHED}": share}


def digest(method: str, size: Size) -> str:
    """What decides a cell besides its name, in eight letters."""
    code = classify.source_of(inspect.getmodule(models.architecture(METHODS[method]).build))
    study = (
        replace(size, methods=()),
        RENDERINGS,
        PARTICLES,
        SNR,
        WEDGES,
        LEARNING_RATES,
        TRIAL,
        RATE.get(method),
        data.CLASSES,
    )
    return blake2b((repr(study) + code).encode(), digest_size=4).hexdigest()


def main(quick: bool) -> dict[str, Any]:
    """All methods."""
    size, prefix = (QUICK, "quick_") if quick else (FULL, "")
    cells = {
        method: harness.measured(
            harness.cell(NAME, f"{prefix}{method}_{digest(method, size)}", partial(one, method, size))
        )
        for method in size.methods
    }
    return summary(cells)


if __name__ == "__main__":
    harness.run(NAME, main)
