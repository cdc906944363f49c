"""What training data from our simulator lose on another simulator's tomograms, acryo's, and what closes that gap.

The same network and budget (those of ``benchmarks/sim_ablation.py``, with tomotif's default network) learn from

- ``boxes``: the fast path, boxes simulated one by one with two neighbours, as ``tomotif simulate subtomograms`` does;
- ``tomograms``: boxes cut from full-path tomograms with everything on;
- ``randomised``: the same, domain-randomised.

A gap is the accuracy on held-out data of ours (``own``: boxes simulated one by one for ``boxes``, tomograms that are
not randomised for both others) minus that on acryo's ``cell`` condition, both at SNR 0.1; accuracy is the mean recall
of six complexes and background. ``gap_before`` is that of ``boxes``, the simplest training data; ``gap_after`` that of
``randomised``; means over seeds. What randomising alone does is the difference of the two last ``trainings``. Networks
learn in bfloat16, which is faster.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks import sim_ablation as study
from tomotif.core import Subtomograms
from tomotif.io.structure import load_structure
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

NAME = "domain_shift"
SNR = 0.1
SEEDS = 2
MODEL = ClassifierSettings().model
VARIANTS = {"tomograms": "base", "randomised": "domain_randomised"}
"""Trainings that are variants of the other study."""


@dataclass(frozen=True)
class Source:
    """Fast-path boxes: training boxes of each class (twice as many of background), and test boxes of each."""

    train: int
    test: int


FULL, QUICK = Source(320, 150), Source(60, 20)


def fast_boxes(count: int, seed: int) -> Subtomograms:
    """Boxes simulated one by one."""
    settings = SubtomogramSettings(
        count=count, background=2 * count, neighbours=2, snr=SNR, snr_reference="1bxn", max_shift_px=study.OFFSET_PX
    )
    structures = [load_structure(name) for name in study.CLASSES]
    return simulate_subtomograms(structures, settings, np.random.default_rng(seed))


@lru_cache(maxsize=1)
def tested(prefix: str, count: int) -> dict[str, Subtomograms]:
    """Held-out boxes of the fast path, and acryo's."""
    boxes = {f"{name} {snr:g}": found for (name, snr), found in study.tested_boxes(prefix).items()}
    return {"ours": fast_boxes(count, 10_000), **boxes}


def one(seed: int, source: Source, plan: study.Plan) -> dict[str, Any]:
    """Train on boxes simulated one by one."""
    settings = plan.classifier.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        train_classifier(fast_boxes(source.train, seed), settings, Path(folder), progress=False)
        accuracy = study.accuracies(Path(folder) / "model", tested(plan.prefix, source.test))
    return {"seed": seed, "accuracy": accuracy}


def main(quick: bool) -> dict[str, Any]:
    """The gap of each kind of training data."""
    plan, source = (study.QUICK, QUICK) if quick else (study.FULL, FULL)
    plan = replace(plan, classifier=plan.classifier.model_copy(update={"model": MODEL, "precision": "bfloat16"}))
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in ("boxes", *VARIANTS)}
    for seed in plan.seeds[:SEEDS]:
        for name, found in cells.items():
            variant = VARIANTS.get(name, "base")
            made = partial(study.one, variant, seed, plan) if name in VARIANTS else partial(one, seed, source, plan)
            digest = blake2b((repr((source, SNR, MODEL)) + study.digest(variant, plan)).encode(), digest_size=4)
            key = f"{plan.prefix}{name}_seed{seed}_{digest.hexdigest()}"
            found.append(harness.measured(harness.cell(NAME, key, made)))
    gaps = {name: study.gap(found, SNR) for name, found in cells.items()}
    return {
        "gap_before": round(gaps["boxes"]["mean"] / 100, 4),
        "gap_after": round(gaps["randomised"]["mean"] / 100, 4),
        "trainings": [
            {
                "trained_on": name,
                "gap": round(gaps[name]["mean"] / 100, 4),
                "gap_sd": round(gaps[name]["sd"] / 100, 4),
                "own": round(float(np.mean([c["accuracy"]["ours"] for c in found])), 4),
                "acryo": round(float(np.mean([study.acryo_accuracy(c, "cell", SNR) for c in found])), 4),
                "acryo_plain": round(float(np.mean([study.acryo_accuracy(c, "plain", SNR) for c in found])), 4),
            }
            for name, found in cells.items()
        ],
    }


if __name__ == "__main__":
    harness.run(NAME, main, seeds=study.SEEDS[:SEEDS])
