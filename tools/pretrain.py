"""Make the classifiers of ``src/tomotif/resources/models``: run from the root of the repository.

    python -m tools.pretrain            # both; the boxes are those of benchmarks/classify_data.py

Both are ``motif3d_rif``, trained as table B of ``benchmarks/classify.py``: boxes of crowded simulated tomograms, ±60°,
±50° and ±40°, noise drawn anew at SNR 0.1 to 0.01, the particle alone as a second task. The card's scores are those on
other tomograms.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import classify
from benchmarks import classify_data as data
from tomotif.data.augment import wedge_safe_flips
from tomotif.engine.model_folder import CARD, KNOWN, Known, load_model, save_model
from tomotif.engine.predict import openvino_predictor, predict_boxes

RESOURCES = Path("src/tomotif/resources/models")
KNOWN_KEPT = 1000
"""Embeddings of particles that were learned from, and of held-out ones, kept for the novelty of new particles."""
TESTED_EVERY = 3
"""Of the test boxes, for the card's scores; all of them are in the benchmark's."""
LIMITS = (
    "trained on simulated tomograms alone: ±60°, ±50° and ±40° about y, phase-flipped, defocus 2 to 6 µm",
    "a structure that is not among the classes, as most in a real cell are, gets the name of another one or "
    "background: see the probability, and tomotif discover",
    "particles more than 2 voxels off the centre of their box were not seen in training",
)


@dataclass(frozen=True)
class Product:
    """One classifier that is shipped."""

    method: classify.Method
    size: data.Size
    about: str


PRODUCTS = {
    "12A": Product(classify.METHODS[classify.OURS], data.FULL, "complexes of 350 kDa and more, boxes of 32³ at 12 Å"),
    "20A": Product(
        classify.Method(
            "B", "motif3d_rif", passes=3, fresh_noise=True, density=True, turns=True, learning_rates=(2e-3,)
        ),
        data.Size(train=6, validation=1, test=2, boxes=100, shape=(96, 192, 192), voxel_size=20.0, box_px=24),
        "large complexes in overview tomograms, boxes of 24³ at 20 Å",
    ),
}


def model_of(name: str, folder: Path) -> Path:
    """Train, or take what the benchmark trained on this machine."""
    product = PRODUCTS[name]
    if name == "12A":
        classify.trained(classify.OURS, 0, product.size)
        return classify.kept_at(classify.OURS, 0, product.size) / "chosen" / "model"
    classify.train(product.method, classify.training_boxes(product.size), 0, folder)
    return folder / "chosen" / "model"


def scores(model: Path, size: data.Size) -> dict[str, float]:
    """Mean recall on test tomograms: single views, and averaged over turns."""
    _, card = load_model(model)
    predict = openvino_predictor(model, 32)
    found: dict[str, float] = {}
    for snr in (0.1, 0.03):
        recalls: dict[str, list[float]] = {"": [], ", with turns": []}
        for tilt in data.TILTS:
            kept = data.boxes_of(tilt, size, "test")
            boxes = kept.take(np.arange(0, len(kept), TESTED_EVERY)).at(snr)
            truth = boxes.particles["class"].to_numpy().astype(str)
            turns = wedge_safe_flips(boxes.missing_wedge)
            for kind, flips in (("", turns[:1]), (", with turns", turns)):
                named = np.array(card.classes)[predict_boxes(predict, boxes.stack, 32, flips).argmax(axis=1)]
                recalls[kind].append(float(np.mean([np.mean(named[truth == c] == c) for c in card.classes])))
        found |= {f"mean recall at SNR {snr:g}{kind}": round(float(np.mean(r)), 3) for kind, r in recalls.items()}
    return found


def some(known: Known) -> Known:
    """Fewer of the particles, drawn at random."""
    rng = np.random.default_rng(0)
    learned, held = (rng.permutation(len(rows))[:KNOWN_KEPT] for rows in (known.learned, known.held))
    return Known(known.learned[learned], known.learned_class[learned], known.held[held], known.held_class[held])


def ship(name: str) -> None:
    """Train one classifier and write it into the package."""
    product = PRODUCTS[name]
    with tempfile.TemporaryDirectory() as folder:
        trained = model_of(name, Path(folder))
        network, card = load_model(trained)
        known = Known.load(trained)
        target = RESOURCES / name
        some(known).save(target)
        about = {"about": product.about, "scores": scores(trained, product.size), "limits": LIMITS}
        save_model(target, network, card.model_copy(update=about), half=True)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB in {CARD}, weights and {KNOWN}; {about['scores']}")  # noqa: T201


def main() -> None:
    """Both, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PRODUCTS), help=f"of {', '.join(PRODUCTS)}")
    for name in parser.parse_args().names:
        ship(name)


if __name__ == "__main__":
    main()
