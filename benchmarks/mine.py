"""Mining without labels: how well the groups that a method finds in boxes are the complexes that are there.

The data are simulated (:mod:`benchmarks.mine_data`): eight complexes and junk at three signal-to-noise ratios, balanced
and with abundances of 20:1; the same with a contrast of its own for every particle; pairs of a complex without and with
a part; and what picking finds in crowded tomograms with membranes. The methods (:mod:`benchmarks.mine_methods`) see
boxes and nothing else, but ``voxel_pca`` and ``autoencoder`` are told the true number of groups. Truth only scores:

- ``ari``, ``v_measure``: adjusted Rand index and V-measure of the groups against complexes and junk, which is a class
  of its own (in tomograms two: membrane and other junk);
- ``junk_f1``: junk against the boxes in groups that are mostly junk;
- ``groups``, ``k_error``: how many groups a method finds, and by how many that is wrong; true are the complexes and
  the kinds of junk;
- ``rarest_recall``: the largest share of the rarest complex in a group that is at least half that complex;
- ``minutes``, ``peak_mb``: of the method, from boxes to groups, and the largest memory of the process meanwhile; those
  of ``supervised`` hold the making of its own boxes.

The encoder of ours has learned with labels, of random assemblies in simulated boxes and tomograms like these, but of no
complex of nature. ``supervised`` is the ceiling: a classifier that learned from labelled boxes of the same kind. Five
seeds of ``balanced_snr0.05``, one of the others. In the summary:

- ``v_measure`` is ours at ``balanced_snr0.05``, and ``best_competitor_v`` that of the best of the other blind methods;
- ``pair_ari`` and ``pair_ceiling`` are means over the pairs, of ours and of the ceiling;
- ``contrast_drop`` is the ARI that ours loses by contrasts, on the very same particles;
- ``k_within_1``: the share of our runs on eight complexes, without contrasts, with a ``k_error`` of at most 1;
- ``rare_found``: the share of our unbalanced runs with a ``rarest_recall`` of at least 0.5;
- ``minutes_800``: the mean time of ours on the 842 balanced boxes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, v_measure_score

from benchmarks import harness
from benchmarks import mine_data as data
from benchmarks import mine_methods as methods
from tomotif.io.environment import peak_memory
from tomotif.ops.metrics import rates

NAME = "mine"
SEEDS = (0, 1, 2, 3, 4)
MIDDLE, NUISANCE = f"balanced_snr{data.MIDDLE_SNR:g}", f"contrast_snr{data.MIDDLE_SNR:g}"
FOUND = 0.5
"""Recall from which a rare complex counts as found, and the share of a group that makes it that complex's."""

Run = dict[str, Any]
"""What one method did on one cell's data."""


@dataclass(frozen=True)
class Study:
    """How large a run is: the data, what methods may do, the seeds, and which data."""

    size: data.Size = data.FULL
    effort: methods.Effort = methods.FULL
    seeds: tuple[int, ...] = SEEDS
    names: tuple[str, ...] = tuple(data.CELLS)


FULL = Study()
QUICK = Study(
    size=data.QUICK,
    effort=methods.QUICK,
    seeds=SEEDS[:1],
    names=(MIDDLE, f"unbalanced_snr{data.MIDDLE_SNR:g}", NUISANCE, "pair_1oel_1aon", "tomograms"),
)


# ---------------------------------------------------------------------------------------------- scores


def scores(truth: NDArray[np.str_], labels: NDArray[np.int64]) -> dict[str, Any]:
    """How good groups are.

    Parameters
    ----------
    truth
        Complex of every box, or one of the kinds of junk, shape (n,).
    labels
        Group of every box, shape (n,).
    """
    groups, true = len(np.unique(labels)), len(np.unique(truth))
    return {
        "ari": round(float(adjusted_rand_score(truth, labels)), 4),
        "v_measure": round(float(v_measure_score(truth, labels)), 4),
        "junk_f1": junk_f1(truth, labels),
        "groups": groups,
        "true_groups": true,
        "k_error": abs(groups - true),
        "rarest_recall": rarest_recall(truth, labels),
    }


def junk_f1(truth: NDArray[np.str_], labels: NDArray[np.int64]) -> float | None:
    """F1 of junk against the boxes in groups that are mostly junk; None where there is none."""
    junk = np.isin(truth, data.JUNK_KINDS)
    if not junk.any():
        return None
    mostly = [name for name in np.unique(labels) if junk[labels == name].mean() > 0.5]
    called = np.isin(labels, mostly)
    found = rates(*(int(np.count_nonzero(which)) for which in (called & junk, called & ~junk, ~called & junk)))
    return round(float(found.f1), 4)


def rarest_recall(truth: NDArray[np.str_], labels: NDArray[np.int64]) -> float | None:
    """Largest share of the rarest complex in a group that is at least half that complex; None where all are as many."""
    names, sizes = np.unique(truth[~np.isin(truth, data.JUNK_KINDS)], return_counts=True)
    if sizes.min() == sizes.max():
        return None
    mine = truth == names[sizes.argmin()]
    own = [np.sum(mine & (labels == name)) for name in np.unique(labels) if mine[labels == name].mean() >= FOUND]
    return round(float(max(own, default=0) / mine.sum()), 4)


# ---------------------------------------------------------------------------------------------- cells


def one(name: str, method: str, seed: int, study: Study) -> Run:
    """What one method does on one cell's data."""
    boxes, truth = data.cell_data(name, seed, study.size)
    with tempfile.TemporaryDirectory() as folder:
        given = methods.Given(
            boxes=boxes,
            groups=len(np.unique(truth)),
            seed=seed,
            effort=study.effort,
            folder=Path(folder),
            more=partial(data.training_data, name, seed, study.size),
        )
        begun = time.perf_counter()
        with peak_memory() as peak:
            labels = methods.METHODS[method](given)
        minutes = (time.perf_counter() - begun) / 60
    return {
        "data": name,
        "method": method,
        "seed": seed,
        "boxes": len(boxes),
        **scores(truth, labels),
        "minutes": round(minutes, 3),
        "peak_mb": round(peak.megabytes, 1),
    }


def digest(method: str, study: Study) -> str:
    """What decides a cell besides its name, in eight letters."""
    code = methods.code_of(data, one, scores, junk_f1, rarest_recall) + methods.code_that_decides(method)
    what = repr((replace(study, seeds=(), names=()), data.CROWDED))
    return blake2b((what + code).encode(), digest_size=4).hexdigest()


def planned(study: Study) -> Iterator[tuple[str, int]]:
    """Data and seed of every cell; those with several seeds come first."""
    for name in sorted(study.names, key=lambda name: name != MIDDLE):
        for seed in study.seeds if name == MIDDLE else study.seeds[:1]:
            yield name, seed


# ---------------------------------------------------------------------------------------------- summary


def mean_of(runs: list[Run], key: str) -> float | None:
    """Mean of a score over the runs that have it."""
    values = [run[key] for run in runs if run[key] is not None]
    return round(float(np.mean(values)), 4) if values else None


def chosen(runs: list[Run], method: str, start: str = "") -> list[Run]:
    """Runs of one method on data whose name begins so."""
    return [run for run in runs if run["method"] == method and run["data"].startswith(start)]


def contrast_drop(runs: list[Run], method: str) -> float:
    """ARI that a method loses by contrasts on the same particles."""
    [without] = [run for run in chosen(runs, method, MIDDLE) if run["seed"] == SEEDS[0]]
    [with_contrasts] = chosen(runs, method, NUISANCE)
    return round(without["ari"] - with_contrasts["ari"], 4)


def table(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """Scores of every method on all data: means, and the standard deviation over seeds where there are several."""
    rows: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(run["data"] for run in runs):
        for method in methods.METHODS:
            same = chosen([run for run in runs if run["data"] == name], method)
            row = {key: mean_of(same, key) for key in ("ari", "v_measure", "junk_f1", "k_error", "rarest_recall")}
            if len(same) > 1:
                row["v_measure_sd"] = round(float(np.std([run["v_measure"] for run in same], ddof=1)), 4)
            rows.setdefault(name, {})[method] = row
    return rows


def summary(runs: list[Run]) -> dict[str, Any]:
    """Numbers of the whole study."""
    ours, ceiling = methods.OURS, methods.CEILING
    v_by_method = {method: mean_of(chosen(runs, method, MIDDLE), "v_measure") for method in methods.METHODS}
    best = max(methods.COMPETITORS, key=lambda method: v_by_method[method] or 0.0)
    eight = [run for start in ("balanced", "unbalanced", "tomograms") for run in chosen(runs, ours, start)]
    rare = chosen(runs, ours, "unbalanced")
    return {
        "v_measure": v_by_method[ours],
        "best_competitor_v": v_by_method[best],
        "best_competitor": best,
        "v_ceiling": v_by_method[ceiling],
        "pair_ari": mean_of(chosen(runs, ours, "pair"), "ari"),
        "pair_ceiling": mean_of(chosen(runs, ceiling, "pair"), "ari"),
        "contrast_drop": contrast_drop(runs, ours),
        "contrast_drop_by_method": {method: contrast_drop(runs, method) for method in methods.METHODS},
        "k_within_1": round(float(np.mean([run["k_error"] <= 1 for run in eight])), 3),
        "rare_found": round(float(np.mean([run["rarest_recall"] >= FOUND for run in rare])), 3),
        "minutes_800": mean_of(chosen(runs, ours, "balanced"), "minutes"),
        "minutes_800_by_method": {
            method: mean_of(chosen(runs, method, "balanced"), "minutes") for method in methods.METHODS
        },
        "by_data": table(runs),
        "cells": runs,
    }


def main(quick: bool) -> dict[str, Any]:
    """All methods on all data."""
    study, prefix = (QUICK, "quick_") if quick else (FULL, "")
    codes = {method: digest(method, study) for method in methods.METHODS}
    runs = [
        harness.measured(
            harness.cell(NAME, f"{prefix}{name}_{method}_seed{seed}_{code}", partial(one, name, method, seed, study))
        )
        for name, seed in planned(study)
        for method, code in codes.items()
    ]
    return summary(runs)


if __name__ == "__main__":
    harness.run(NAME, main, seeds=SEEDS)
