"""How little features change with pose and missing wedge, against what they differ by between complexes.

The spread ratio: the square root of the features' variance over renderings of one complex (mean over complexes) over
their variance between the complexes' means. 16 renderings of a particle, eight particles of each of ten complexes, at
SNR 0.1 of each, alone in the box:

- ``rigid``: another rotation, shift (up to 2 voxels), defocus and noise each time, ±60° about y.
- ``wedge``: the tilt range (±60°, ±50° or ±40°) and the tilt axis (y or x) change as well.

Networks are those of ``benchmarks/classify.py``, trained in crowded tomograms (seed 0). Features are logits, one value
a class; ``embedding`` has the ratios of what the last layer is made from. ``unseen``: complexes that no network knows.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import classify, harness
from benchmarks import classify_data as data
from tomotif.core.missing_wedge import TiltAxis
from tomotif.io.structure import load_structure
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

NAME = "features"
METHODS = ("ours", "ours_fast", "dsrf3d", "inception3d", "rb3d_gap", "cb3d_gap")
QUICK_METHODS = ("ours", "rb3d_gap")
OURS, PUBLISHED = "ours", "dsrf3d"
RENDERINGS, PARTICLES = 16, 8
SNR = 0.1
AXES: tuple[TiltAxis, ...] = ("y", "x")


def spread_ratio(features: NDArray[np.floating], names: NDArray[np.str_]) -> float:
    """Spread within complexes over the spread between them, √(tr Σ_within / tr Σ_between).

    >>> spread_ratio(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array(["a", "a", "b", "b"]))
    0.2
    """
    groups = [np.asarray(features[names == name], np.float64) for name in np.unique(names)]
    within = np.mean([group.var(axis=0).sum() for group in groups])
    between = np.stack([group.mean(axis=0) for group in groups]).var(axis=0).sum()
    return float(np.sqrt(within / between))


def renderings(
    classes: tuple[str, ...], count: int, tilt: int, axis: TiltAxis, seed: int
) -> tuple[NDArray[np.float16], NDArray[np.str_]]:
    """Boxes of each complex, and whose they are."""
    settings = SubtomogramSettings(count=count, snr=SNR, tilt_range=(-float(tilt), float(tilt)), tilt_axis=axis)
    made = simulate_subtomograms([load_structure(name) for name in classes], settings, np.random.default_rng(seed))
    return np.asarray(made.stack), made.particles["class"].to_numpy().astype(str)


def rendered(kind: str, classes: tuple[str, ...]) -> tuple[NDArray[np.float16], NDArray[np.str_]]:
    """All renderings for one of the ratios."""
    wedges = [(60, AXES[0])] if kind == "rigid" else [(tilt, axis) for tilt in data.TILTS for axis in AXES]
    count = -(-RENDERINGS * PARTICLES // len(wedges))
    parts = [renderings(classes, count, tilt, axis, seed) for seed, (tilt, axis) in enumerate(wedges)]
    return np.concatenate([stack for stack, _ in parts]), np.concatenate([names for _, names in parts])


def one(method: str, size: data.Size) -> dict[str, Any]:
    """The spread ratios of one method."""
    trained = classify.trained(method, 0, size)
    numbers: dict[str, Any] = {"method": method}
    for where, classes in (("known", data.CLASSES), ("unseen", classify.UNSEEN)):
        for kind in ("rigid", "wedge"):
            boxes, names = rendered(kind, classes)
            numbers[f"{where}_{kind}"] = {
                "logits": round(spread_ratio(trained.logits(boxes), names), 4),
                "embedding": round(spread_ratio(trained.features(boxes), names), 4),
            }
    return numbers


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios of the logits by method, and by what factor ours are smaller than the published network's."""
    flat = {
        method: {
            **{name: cell[name]["logits"] for name in cell if name != "method"},
            "embedding": {name: cell[name]["embedding"] for name in cell if name != "method"},
        }
        for method, cell in cells.items()
    }
    if OURS not in flat or PUBLISHED not in flat:
        return flat
    share = {
        f"ours_over_{PUBLISHED}_{k}": round(flat[OURS][k] / flat[PUBLISHED][k], 3)
        for k in ("known_rigid", "known_wedge")
    }
    return {**flat, **share}


def main(quick: bool) -> dict[str, Any]:
    """All methods."""
    size, names, prefix = (data.QUICK, QUICK_METHODS, "quick_") if quick else (data.FULL, METHODS, "")
    cells = {}
    for method in names:
        study = repr((RENDERINGS, PARTICLES, SNR)) + classify.digest(classify.METHODS[method], size)
        key = f"{prefix}{method}_{blake2b(study.encode(), digest_size=4).hexdigest()}"
        cells[method] = harness.measured(harness.cell(NAME, key, partial(one, method, size)))
    return summary(cells)


if __name__ == "__main__":
    harness.run(NAME, main)
