"""How well subtomograms of crowded cells are named: published networks, rotation-invariant features with an SVM, ours.

Ten complexes and background in simulated tomograms (``benchmarks/classify_data.py``), four noise levels × three tilt
ranges. Each method is trained once over all twelve conditions mixed and tested in each, on other tomograms.

- Table **A**, the same recipe for all: the same fixed boxes, each at one SNR, flips and shifts of a voxel, AdamW with
  one cycle, the learning rate of a sweep on validation tomograms in which each rate sees a third of the samples. The
  heavy networks see fewer boxes (``samples``), learn in bfloat16 and are tested on every fourth box; those without
  batch normalisation (``dsrf3d``) have no sweep, but a rate of 1e-4 that was found by hand. ``dsrf3d_v2`` and
  ``rb3d_gap`` do not leave chance in what they see. Of ``rb3d``
  and ``cb3d`` the light variants take part.
- Table **B**, our recipe: noise drawn anew each time a box is seen, and the particle's own density to draw as a second
  task. ``ours_int8`` is another training by it, in 8-bit integers. ``ours_without_…`` leave out one part each;
  ``ablation`` has what the parts add to the mean accuracy, and what averaging over the turns that keep the missing
  wedge would add, which takes four times the time. The published network that is best in table A learns by our recipe
  as well (``…_by_our_recipe``).

The networks train and are tested on a GPU where there is one; cells say so (``gpu``). On two cores the literal networks
take hours each.

Accuracy is the mean recall of the eleven classes, ``ece`` the expected calibration error after temperature scaling on
validation boxes. ``per_s`` is of a network in OpenVINO, measured for all in one process (``speeds``); the SVM's has its
features. SNR is RuBisCO's, alone, over its box; ``snr_by_class`` has that of all classes at 0.1 and ±60°, over the box
and in the signal's band. ``speed_ratio`` is of what a user runs (``in_use``) to the best published network in 32-bit
floats; ``against_best_published`` has ``ours`` and ``ours_fast`` in the same floats. ``few_shot``: five complexes that
no method has seen, at SNR 0.1 and ±60°, named by the nearest of the means of five labelled boxes each, ours with its
features averaged over turns; GroEL–GroES and the small ribosomal subunit hold parts of complexes that were learned.
``sd`` is over seeds, none where there is one.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks import classify_data as data
from benchmarks import harness
from tomotif import models
from tomotif.core import MissingWedge, Subtomograms
from tomotif.data.augment import Flip, wedge_safe_flips
from tomotif.data.noise import FreshNoise
from tomotif.data.splits import split_by_tomogram
from tomotif.engine.int8 import write_int8
from tomotif.engine.model_folder import ModelCard
from tomotif.engine.predict import (
    NO_FLIPS,
    Layer,
    Predictor,
    int8_predictor,
    openvino_predictor,
    predict_boxes,
    torch_predictor,
)
from tomotif.engine.speed import boxes_per_second
from tomotif.io.environment import cpu_count
from tomotif.io.files import read_json, replacing, write_json
from tomotif.models import registry
from tomotif.ops import rotation_invariant
from tomotif.ops.calibration import expected_calibration_error, fit_temperature, softmax
from tomotif.ops.rotation_invariant import shell_power
from tomotif.tasks.classify import ClassifierSettings, train_classifier

NAME = "classify"
SEEDS = (0,)
PASSES = 3
"""How often each of 17,280 training boxes is seen: 51,840 samples."""
HELD = 0.11
"""Fraction of the boxes, in whole tomograms, that are validated with."""
UNSEEN = ("3j9i", "1aon", "4v8r", "1htq", "4v4r")
"""Classes that no method has seen, not even as distractors."""
FEW, FEW_DRAWS = 5, 20
"""Labelled boxes of each unseen class, and how often they are drawn anew."""
SPEED_ROUNDS = 3
SVM_SWEEP = 5000
"""Boxes of the sweep over the support vector machine's settings; the final one learns from all."""


@dataclass(frozen=True)
class Method:
    """One way to name boxes.

    Attributes
    ----------
    table
        "A" for the recipe that all share, "B" for ours.
    model
        Registry name; "rif_svm" is the one that is no network.
    passes
        How often each training box is seen.
    share
        Share of the training boxes that are seen; heavy networks see fewer.
    fresh_noise, density
        What our recipe adds.
    turns
        Whether it is also tested with logits averaged over turns; features are averaged then.
    """

    table: str
    model: str
    passes: int = PASSES
    share: float = 1.0
    fresh_noise: bool = False
    density: bool = False
    turns: bool = False
    learning_rates: tuple[float, ...] = (2e-4, 6e-4, 2e-3)


OUR_RECIPE = Method("B", "motif3d_rif", fresh_noise=True, density=True, turns=True)
AT_ITS_RATE = replace(OUR_RECIPE, turns=False, learning_rates=(2e-3,))
"""Our recipe without its sweep, at the rate that it chose."""
PUBLISHED = ("inception3d", "dsrf3d", "dsrf3d_v2", "rb3d_gap", "cb3d_gap")
OURS = "ours"
HEAVY = {"rb3d_gap", "dsrf3d", "dsrf3d_v2"}
"""Networks that learn in bfloat16 and are tested on every fourth box, or they would take hours."""
BY_OUR_RECIPE, INT8 = "_by_our_recipe", "_int8"
METHODS = {
    "rif_svm": Method("A", "rif_svm"),
    "motif3d_rif": Method("A", "motif3d_rif"),
    "cb3d_gap": Method("A", "cb3d_gap"),
    "inception3d": Method("A", "inception3d", share=0.5, learning_rates=(6e-4, 2e-3)),
    "rb3d_gap": Method("A", "rb3d_gap", share=0.5, learning_rates=(6e-4, 2e-3)),
    "dsrf3d": Method("A", "dsrf3d", share=0.5, learning_rates=(1e-4,)),
    "dsrf3d_v2": Method("A", "dsrf3d_v2", share=0.5, learning_rates=(1e-4,)),
    "ours": OUR_RECIPE,
    "ours_int8": AT_ITS_RATE,
    "ours_fast": replace(OUR_RECIPE, model="motif3d_fast"),
    "ours_without_invariants": replace(AT_ITS_RATE, model="motif3d"),
    "ours_without_density": replace(AT_ITS_RATE, density=False),
    "ours_without_fresh_noise": replace(AT_ITS_RATE, fresh_noise=False),
    **{name + BY_OUR_RECIPE: replace(AT_ITS_RATE, model=name) for name in PUBLISHED},
}
QUICK_METHODS = ("rif_svm", "motif3d_rif", "rb3d_gap", "ours")
"""Of the quick run."""


# ---------------------------------------------------------------------------------------------- training


@lru_cache(maxsize=1)
def training_boxes(size: data.Size) -> data.Boxes:
    """Boxes of the training tomograms of all tilt ranges, then those of the validation tomograms.

    Mapped from files, which the processes of a study share.
    """
    folder = data.folder_of(size)
    paths = {name: folder / f"training_{name}.npy" for name in data.ARRAYS}
    if not all(path.exists() for path in paths.values()):
        made = data.joined([data.boxes_of(tilt, size, part) for part in ("train", "validation") for tilt in data.TILTS])
        for name, path in paths.items():
            with replacing(path) as partial_file, partial_file.open("wb") as file:
                np.save(file, getattr(made, name), allow_pickle=False)
    arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}
    return data.Boxes(**arrays, tilt=data.TILTS[0], voxel_size=size.voxel_size)


def training_levels(count: int) -> NDArray[np.float64]:
    """The one SNR of every training box, the same for all methods."""
    return np.random.default_rng(0).choice(data.SNRS, count)


OfBoxes = Callable[[NDArray[np.floating]], NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """A method that has learned.

    Attributes
    ----------
    logits
        Of boxes, columns in the order of the sorted class names, at the temperature that validation boxes bore out.
    features
        Of boxes: where it places them.
    facts
        How it was trained.
    turned
        Logits as well, averaged over turns.
    """

    logits: OfBoxes
    features: OfBoxes
    facts: dict[str, Any]
    turned: OfBoxes | None = None


def kept_at(key: str, seed: int, size: data.Size) -> Path:
    """Where this machine keeps a trained network."""
    return data.folder_of(size) / "models" / f"{key}_seed{seed}_{digest(METHODS[key], size)}"


def trained(key: str, seed: int, size: data.Size) -> Trained:
    """A method of the study, trained now or found where this machine keeps it."""
    method = METHODS[key]
    if method.model == "rif_svm":
        return train_svm(training_boxes(size), seed)
    folder = kept_at(key, seed, size)
    facts_path, model = folder / "facts.json", folder / "chosen" / "model"
    if not facts_path.exists():
        write_json(facts_path, train(method, training_boxes(size), seed, folder))
    facts = read_json(facts_path)
    if key.endswith(INT8):
        boxes = training_boxes(size).take(np.random.default_rng(seed).permutation(len(training_boxes(size)))[:1024])
        facts["agreement"] = write_int8(model, boxes.at(training_levels(len(boxes))).stack)
    predictor = int8_predictor if key.endswith(INT8) else fastest_predictor

    def through(layer: Layer, scale: float, turns: Sequence[Flip]) -> OfBoxes:
        predict = predictor(model, 32, layer)
        return lambda stack: predict_boxes(predict, stack, 32, turns) * np.float32(scale)

    logits = through("logits", 1 / facts["temperature"], NO_FLIPS)
    if not method.turns:
        return Trained(logits, through("embedding", 1.0, NO_FLIPS), facts)
    turns = wedge_safe_flips(MissingWedge(-data.TILTS[0], data.TILTS[0]))  # the same for all symmetric tilt ranges
    return Trained(logits, through("embedding", 1.0, turns), facts, through("logits", 1 / facts["temperature"], turns))


def train(method: Method, boxes: data.Boxes, seed: int, folder: Path) -> dict[str, Any]:
    """Train a network with the best learning rate of a short sweep; gives how it was trained."""
    begun = time.perf_counter()
    trial = replace(method, passes=1)
    tried = {
        rate: train_network(trial, boxes, seed, rate, folder / f"trial_{rate:g}").validation_accuracy or 0.0
        for rate in (method.learning_rates if len(method.learning_rates) > 1 else ())
    }
    rate = max(tried, key=lambda one: tried[one]) if tried else method.learning_rates[0]
    card = train_network(method, boxes, seed, rate, folder / "chosen")
    return {
        "samples": int(card.training["particles"] or 0) * method.passes,
        "learning_rate": rate,
        "tried": {f"{one:g}": round(accuracy, 4) for one, accuracy in tried.items()},
        "temperature": card.temperature,
        "validation_accuracy": card.validation_accuracy,
        "train_s": round(time.perf_counter() - begun, 1),
    }


def train_network(method: Method, boxes: data.Boxes, seed: int, rate: float, folder: Path) -> ModelCard:
    """Train one network on the share of the boxes that the method sees."""
    rows = np.sort(np.random.default_rng(1).permutation(len(boxes))[: round(method.share * len(boxes))])
    some = boxes if len(rows) == len(boxes) else boxes.take(rows)
    settings = ClassifierSettings(
        model=method.model,
        epochs=method.passes,
        learning_rate=rate,
        validation_fraction=HELD,
        seed=seed,
        precision="bfloat16" if method.model in HEAVY else "float32",
    )
    density = data.alone(some) if method.density else None
    if not method.fresh_noise:
        made = some.at(training_levels(len(boxes))[rows])
        return train_classifier(made, settings, folder, density=density, progress=False)
    _, tomogram = np.unique(some.tomogram, return_inverse=True)
    noise = FreshNoise(some.noise, tomogram, tuple(float(np.sqrt(data.UNIT_SNR / snr)) for snr in data.SNRS))
    return train_classifier(some.noise_free(), settings, folder, noise=noise, density=density, progress=False)


def fastest_predictor(model: Path, batch_size: int, layer: Layer) -> Predictor:
    """A network on the GPU where there is one, in OpenVINO otherwise."""
    return (torch_predictor if torch.cuda.is_available() else openvino_predictor)(model, batch_size, layer)


def train_svm(boxes: data.Boxes, seed: int) -> Trained:
    """Rotation-invariant features and a support vector machine with a Gaussian kernel; C and width on validation."""
    begun = time.perf_counter()
    made = boxes.at(training_levels(len(boxes)))
    features, names = shell_features(made.stack), made.particles["class"].to_numpy().astype(str)
    rows, held = split_by_tomogram(made.particles, HELD, np.random.default_rng(seed))
    some = np.random.default_rng(seed).permutation(rows)[:SVM_SWEEP]

    def fitted(penalty: float, width: float, learned: NDArray[np.int64]) -> Pipeline:
        machine = SVC(C=penalty, gamma=width / features.shape[1], decision_function_shape="ovr", cache_size=2000)
        return make_pipeline(StandardScaler(), machine).fit(features[learned], names[learned])

    tried = {
        (penalty, width): float(fitted(penalty, width, some).score(features[held], names[held]))
        for penalty in (1.0, 10.0)
        for width in (0.1, 0.3, 1.0)
    }
    penalty, width = max(tried, key=lambda one: tried[one])
    machine = fitted(penalty, width, rows)
    classes = np.unique(names)
    temperature = fit_temperature(machine.decision_function(features[held]), np.searchsorted(classes, names[held]))

    def logits(stack: NDArray[np.floating]) -> NDArray[np.float32]:
        return (machine.decision_function(shell_features(stack)) / temperature).astype(np.float32)

    facts = {
        "samples": len(rows),
        "tried": {f"C {c:g}, width {w:g}": round(accuracy, 4) for (c, w), accuracy in tried.items()},
        "temperature": round(temperature, 4),
        "validation_accuracy": round(float(machine.score(features[held], names[held])), 4),
        "train_s": round(time.perf_counter() - begun, 1),
    }
    return Trained(logits, lambda stack: machine[0].transform(shell_features(stack)).astype(np.float32), facts)


def shell_features(stack: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rotation-invariant features of a stack, some boxes at a time."""
    return np.concatenate([shell_power(stack[i : i + 64].astype(np.float32)) for i in range(0, len(stack), 64)])


# ---------------------------------------------------------------------------------------------- testing


def scored(logits_of: OfBoxes, boxes: Subtomograms) -> dict[str, Any]:
    """Accuracy, macro F1, calibration and speed in one condition."""
    begun = time.perf_counter()
    logits = logits_of(boxes.stack)
    seconds = time.perf_counter() - begun
    truth = boxes.particles["class"].to_numpy().astype(str)
    classes = np.unique(truth)
    probability, found = softmax(logits).max(axis=1), classes[logits.argmax(axis=1)]
    return {
        "accuracy": round(float(recall_score(truth, found, average="macro")), 4),
        "macro_f1": round(float(f1_score(truth, found, average="macro")), 4),
        "ece": round(expected_calibration_error(probability, found == truth), 4),
        "per_s": round(len(boxes) / seconds, 1),
        "recall": dict(zip(classes.tolist(), recall_score(truth, found, average=None).round(4).tolist(), strict=True)),
        "boxes": len(boxes),
    }


def few_shot(features_of: OfBoxes, size: data.Size) -> dict[str, float]:
    """Accuracy on classes that were never seen, from a handful of labels of each: the nearest class mean.

    Features are on the unit sphere after their common mean was taken off; no label is used for that.
    """
    unseen = data.boxes_of(data.TILTS[0], replace(size, test=1, classes=UNSEEN), "test")
    unseen = unseen.take(np.flatnonzero(np.isin(unseen.classes, UNSEEN)))
    features = features_of(unseen.at(0.1).stack).astype(np.float64)
    features -= features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    _, target = np.unique(unseen.classes, return_inverse=True)
    rng, found = np.random.default_rng(0), []
    for _ in range(FEW_DRAWS):
        labelled = np.concatenate([rng.permutation(np.flatnonzero(target == one))[:FEW] for one in range(len(UNSEEN))])
        means = features[labelled].reshape(len(UNSEEN), FEW, -1).mean(axis=1)
        rest = np.setdiff1d(np.arange(len(target)), labelled)
        nearest = ((features[rest, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        found.append(recall_score(target[rest], nearest, average="macro"))
    return {"accuracy": round(float(np.mean(found)), 4), "sd": round(float(np.std(found)), 4)}


def one(key: str, seed: int, size: data.Size) -> dict[str, Any]:
    """Train one method and test it in all conditions."""
    method = trained(key, seed, size)
    conditions = []
    for tilt in data.TILTS:
        boxes = data.boxes_of(tilt, size, "test")
        if key in HEAVY:
            boxes = boxes.take(np.arange(0, len(boxes), 4))
        for snr in data.SNRS:
            noisy = boxes.at(snr)
            condition = {"snr": snr, "tilt": tilt, **scored(method.logits, noisy)}
            if method.turned is not None:
                condition["accuracy_turned"] = scored(method.turned, noisy)["accuracy"]
            conditions.append(condition)
    return {
        "method": key,
        "seed": seed,
        **method.facts,
        "few_shot": few_shot(method.features, size),
        "conditions": conditions,
    }


# ---------------------------------------------------------------------------------------------- the study


def digest(method: Method, size: data.Size) -> str:
    """What decides a cell besides its name, in eight letters."""
    if method.model == "rif_svm":
        code = inspect.getsource(rotation_invariant)
    else:
        code = source_of(inspect.getmodule(models.architecture(method.model).build))
    study = repr((method, HELD, SVM_SWEEP)) + code + data.folder_of(size).name
    return blake2b(study.encode(), digest_size=4).hexdigest()


def source_of(module: ModuleType | None) -> str:
    """Code of a network's module, and of those that it takes its layers from."""
    if module is None or module is registry or not module.__name__.startswith("tomotif.models"):
        return ""
    taken = {inspect.getmodule(layer) for layer in vars(module).values() if inspect.isclass(layer)} - {module}
    others = sorted((source_of(other) for other in taken), key=len)
    return inspect.getsource(module) + "".join(others)


def table_rows(runs: dict[str, list[dict[str, Any]]], per_s: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each method and condition: means over seeds, and the standard deviation of the accuracy."""
    rows = []
    for key, cells in runs.items():
        for same in zip(*(cell["conditions"] for cell in cells), strict=True):
            accuracy = [one["accuracy"] for one in same]
            means = {
                name: round(float(np.mean([one[name] for one in same])), 4) for name in ("macro_f1", "ece", "per_s")
            }
            means["per_s"] = per_s.get(key, means["per_s"])
            rows.append(
                {
                    "snr": same[0]["snr"],
                    "tilt": same[0]["tilt"],
                    "method": key,
                    "table": METHODS[key].table,
                    "accuracy": round(float(np.mean(accuracy)), 4),
                    "sd": round(float(np.std(accuracy, ddof=1)), 4) if len(accuracy) > 1 else None,
                    **means,
                }
            )
    return rows


def pivot(rows: list[dict[str, Any]], table: str) -> dict[str, dict[str, float]]:
    """Accuracy of the methods of table A or B, a column a condition."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["table"] == table:
            found.setdefault(row["method"], {})[f"{row['snr']:g}, ±{row['tilt']:g}°"] = row["accuracy"]
    return found


def mean_accuracy(rows: list[dict[str, Any]], method: str, highest_snr: float = 0.1) -> float:
    """Mean over the conditions up to an SNR."""
    return float(np.mean([r["accuracy"] for r in rows if r["method"] == method and r["snr"] <= highest_snr]))


def ablation(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """What each part of our recipe adds to the mean accuracy, and what averaging over turns would add."""

    def mean(key: str, name: str = "accuracy") -> float:
        return float(np.mean([one[name] for cell in runs[key] for one in cell["conditions"]]))

    without = f"{OURS}_without_"
    parts = {key.removeprefix(without): mean(OURS) - mean(key) for key in runs if key.startswith(without)}
    gains = {**parts, "turns": mean(OURS, "accuracy_turned") - mean(OURS)}
    return {name: round(gain, 4) for name, gain in gains.items()}


def speeds(names: Sequence[str]) -> dict[str, Any]:
    """Boxes a second through the networks of some methods on this machine, all cores: the best of several rounds.

    Weights do not matter for that. A round goes through all networks, so that a disturbance meets all of them.
    """
    best = dict.fromkeys(names, 0.0)
    for _ in range(SPEED_ROUNDS):
        for key in names:
            rate = boxes_per_second(METHODS[key].model, 32, len(data.CLASSES) + 1, int8=key.endswith(INT8))
            best[key] = max(best[key], rate)
    return {"per_s": {key: round(value, 1) for key, value in best.items()}, "threads": cpu_count()}


def in_use(runs: Iterable[str]) -> str:
    """What of ours a user runs for speed: the network in 8-bit integers, where that was tested."""
    return OURS + INT8 if OURS + INT8 in runs else OURS


def best_published(rows: list[dict[str, Any]]) -> str:
    """The published network of table A that is most accurate at low SNR."""
    there = {r["method"] for r in rows} & set(PUBLISHED)
    return max(sorted(there), key=lambda key: mean_accuracy(rows, key, 0.05))


def compared(rows: list[dict[str, Any]], per_s: dict[str, float], key: str, best: str) -> dict[str, float]:
    """A method against the best published network: accuracy over SNR up to 0.05, the worst condition of all, speed."""
    of = {one: {(r["snr"], r["tilt"]): r["accuracy"] for r in rows if r["method"] == one} for one in (key, best)}
    return {
        "ours_minus_best_published": round(mean_accuracy(rows, key, 0.05) - mean_accuracy(rows, best, 0.05), 4),
        "worst_cell": round(min(of[key][condition] - of[best][condition] for condition in of[key]), 4),
        "speed_ratio": round(per_s[key] / per_s[best], 2),
    }


def summary(runs: dict[str, list[dict[str, Any]]], per_s: dict[str, float]) -> dict[str, Any]:
    """What the goals ask for, from the cells of all methods and the speeds of their networks."""
    rows = table_rows(runs, per_s)
    best = best_published(rows)
    against = {key: compared(rows, per_s, key, best) for key in runs if key not in PUBLISHED and key in per_s}
    return {
        "ours_minus_rif_svm": round(mean_accuracy(rows, OURS) - mean_accuracy(rows, "rif_svm"), 4),
        "best_published": best,
        **against[in_use(runs)],
        "ece": round(float(np.mean([r["ece"] for r in rows if r["method"] == in_use(runs)])), 4),
        "in_use": in_use(runs),
        "against_best_published": against,
        "few_shot": round(float(np.mean([cell["few_shot"]["accuracy"] for cell in runs[OURS]])), 4),
        "few_shot_all": {key: round(float(np.mean([c["few_shot"]["accuracy"] for c in runs[key]])), 4) for key in runs},
        "mean_accuracy": {key: round(mean_accuracy(rows, key), 4) for key in runs},
        "table_a": pivot(rows, "A"),
        "table_b": pivot(rows, "B"),
        "ablation": ablation(runs),
        "snr_by_class": data.snr_of(data.CLASSES, data.SETTINGS),
        "training": {
            key: {name: cells[0].get(name) for name in ("samples", "learning_rate", "tried", "train_s", "temperature")}
            for key, cells in runs.items()
        },
        "cells": rows,
    }


def main(quick: bool) -> dict[str, Any]:
    """Every method with every seed."""
    every = tuple(name for name in METHODS if not name.endswith(BY_OUR_RECIPE))
    size, names, prefix = (data.QUICK, QUICK_METHODS, "quick_") if quick else (data.FULL, every, "")
    seeds = SEEDS[:1] if quick else SEEDS

    def cells(name: str) -> list[dict[str, Any]]:
        keys = [f"{prefix}{name}_seed{seed}_{digest(METHODS[name], size)}" for seed in seeds]
        return [
            harness.measured(harness.cell(NAME, key, partial(one, name, seed, size)))
            for key, seed in zip(keys, seeds, strict=True)
        ]

    runs = {name: cells(name) for name in names}
    best = best_published(table_rows(runs, {})) + BY_OUR_RECIPE
    runs[best] = cells(best)
    networks = [name for name in runs if METHODS[name].model != "rif_svm"]
    digests = repr([digest(METHODS[name], size) for name in networks]).encode()
    speed_key = f"{prefix}speeds_{blake2b(digests, digest_size=4).hexdigest()}"
    return summary(runs, harness.cell(NAME, speed_key, partial(speeds, networks))["per_s"])


if __name__ == "__main__":
    harness.run(NAME, main, seeds=SEEDS)
