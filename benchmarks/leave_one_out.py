"""Leave-one-out: whether a complex that no training has seen is found among others, and shown by its blind average.

For each of ten complexes a network is trained on boxes of all others of the library and background, and sees boxes of
the ten. Its features are clustered (``tomotif discover --turns``, otherwise default settings: no label chooses
anything), and

- ``auroc``: how well the novelty of single particles tells the left-out complex from the known nine, without
  background; of the default score, ``auroc_by_score`` has the others, and ``auroc_alone`` the default one of each
  particle by itself, without its neighbours in feature space; ``auroc_background`` counts background as known;
- ``discovered``: a cluster is at least half that complex (``purity``), ``completeness``: the share of it in there;
- ``recovered``: the blind average of the largest such cluster, fitted to the complex's density, reaches FSC 0.5 at no
  more than 1.5 × the resolution of the ``oracle``: true poses of those of its members that are that complex.

Boxes of 32³ at 12 Å, ±60°, SNR 0.05 of each complex alone, CTF, two neighbours, up to 2 voxels off: the fast simulator.
The neighbours in training are not of the left-out complex either. GroEL–GroES is left out with GroEL, the subunits of
the ribosome with it. Embeddings are means over the turns that keep the wedge. ``recovered_fraction``: of complexes
above 300 kDa.
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
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks import harness
from benchmarks.classify_data import CLASSES, snr_of
from benchmarks.recover import resolution
from tomotif.core import BACKGROUND, Subtomograms
from tomotif.data.augment import wedge_safe_flips
from tomotif.engine.model_folder import Known, load_model
from tomotif.engine.predict import openvino_predictor, predict_boxes
from tomotif.io.files import replacing
from tomotif.io.structure import load_structure, structure_names
from tomotif.ops import clustering
from tomotif.ops import novelty as scoring
from tomotif.ops.average import wedge_weighted_average
from tomotif.tasks import discover as discovery
from tomotif.tasks.average import AlignSettings, align, average, offsets
from tomotif.tasks.average.classes import with_poses
from tomotif.tasks.classify import ClassifierSettings, logits_of, train_classifier
from tomotif.tasks.discover import DiscoverSettings, discover
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

NAME = "leave_one_out"
SNR = 0.05
NEIGHBOURS = 2
SCORES: tuple[discovery.Score, ...] = ("combined", "mahalanobis", "energy", "neighbours")
ALONE = "alone"
OWN_SHARE, RATIO, HEAVY_KDA = 0.5, 1.5, 300.0
RELATIVES = {"1oel": ("1aon",), "4v5d": ("4v5d_50s", "4v4r")}
"""Complexes that hold another one, or are part of it."""
FEWEST = 12
"""Particles of a cluster that is averaged."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    complexes: tuple[str, ...] = CLASSES
    others: tuple[str, ...] = tuple(name for name in structure_names() if name not in CLASSES)
    """Complexes that are trained on beside those, and are not there."""
    train: int = 500
    """Training boxes of each complex, and twice as many of background."""
    epochs: int = 3
    test: int = 100
    """Boxes of each complex to look at, and of background."""
    starts: int = 2
    """Of the blind alignment."""
    model: str = ClassifierSettings().model


FULL = Size()
QUICK = Size(complexes=("4v5d", "1bxn"), others=(), train=250, epochs=4, test=40, starts=1)


def boxes(names: tuple[str, ...], count: int, background: int, seed: int) -> Subtomograms:
    """Boxes of some complexes and background."""
    structures = [load_structure(name) for name in names]
    return simulate_subtomograms(structures, settings_of(count, background), np.random.default_rng(seed))


def settings_of(count: int, background: int) -> SubtomogramSettings:
    """Of boxes of so many particles of each complex."""
    return SubtomogramSettings(count=count, background=background, neighbours=NEIGHBOURS, snr=SNR, snr_reference="each")


def without(left_out: str, size: Size, folder: Path) -> Path:
    """Train on all but one complex; gives the model folder."""
    others = tuple(name for name in (*CLASSES, *size.others) if name not in (left_out, *RELATIVES.get(left_out, ())))
    settings = ClassifierSettings(model=size.model, epochs=size.epochs)
    train_classifier(boxes(others, size.train, 2 * size.train, 1), settings, folder, progress=False)
    return folder / "model"


def explored(
    model: Path, seen: Subtomograms
) -> tuple[NDArray[np.str_], NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Names and clusters of boxes, and their novelty by every score."""
    network, card = load_model(model)
    known = Known.load(model)
    predict = openvino_predictor(model, 32, "embedding")
    embedding = predict_boxes(predict, seen.stack, 32, wedge_safe_flips(seen.missing_wedge))
    logits, held = logits_of(network, embedding), logits_of(network, known.held)
    placed = replace(seen.particles, features=embedding, feature_names=tuple(map(str, range(embedding.shape[1]))))
    found = discover(placed, logits, known, held, card.classes, card.temperature, DiscoverSettings())
    scores = {kind: DiscoverSettings(novelty=kind) for kind in SCORES} | {ALONE: DiscoverSettings(neighbourhood=1)}
    novelty = {
        name: discovery.novelties(embedding, logits, known, held, card.temperature, settings)[0]
        for name, settings in scores.items()
    }
    return found["class"].to_numpy().astype(str), found["cluster"].to_numpy(np.int64), novelty


def aurocs(truth: NDArray[np.str_], left_out: str, novelty: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """How well each score tells the left-out complex from the known ones."""
    complexes = truth != BACKGROUND
    by_score = {
        k: round(float(roc_auc_score(truth[complexes] == left_out, v[complexes])), 4) for k, v in novelty.items()
    }
    default, alone = DiscoverSettings().novelty, by_score.pop(ALONE)
    everything = round(float(roc_auc_score(truth == left_out, novelty[default])), 4)
    return {
        "auroc": by_score[default],
        "auroc_alone": alone,
        "auroc_by_score": by_score,
        "auroc_background": everything,
    }


def own_cluster(truth: NDArray[np.str_], cluster: NDArray[np.int64], left_out: str) -> tuple[int, float, float]:
    """The cluster that holds most of the left-out complex, its purity, and its completeness.

    Clusters of which at least half is that complex come first.
    """
    mine = truth == left_out

    def purity(number: np.int64) -> float:
        return float(mine[cluster == number].mean())

    def rank(number: np.int64) -> tuple[bool, int]:
        return purity(number) >= OWN_SHARE, int(np.count_nonzero(mine & (cluster == number)))

    best = max(np.unique(cluster[cluster > 0]), key=rank)
    return int(best), purity(best), float(np.count_nonzero(mine & (cluster == best)) / mine.sum())


def averaged(
    seen: Subtomograms, rows: NDArray[np.int64], left_out: str, size: Size
) -> tuple[dict[str, Any], NDArray[np.float16]]:
    """Blind average of a cluster and that of the oracle: resolutions, and central slices (2, 3, D, D)."""
    particles = seen.particles
    true = rows[particles["class"].to_numpy().astype(str)[rows] == left_out]
    shifts_px = offsets(particles)[true] / seen.voxel_size
    oracle = wedge_weighted_average(seen.boxes(true), particles.orientation[true], shifts_px, seen.missing_wedge)[0]
    found = align(seen, rows, AlignSettings(starts=size.starts, checks=False), np.random.default_rng(0))
    posed = with_poses(seen, [found])
    one_group = posed.particles.with_columns(group=np.full(len(rows), "cluster", dtype=object))
    [made] = average(replace(posed, particles=one_group), by="group").averages
    ours, best = resolution(made.volume, left_out), resolution(oracle, left_out)
    numbers = {"fsc05_A": round(ours, 2), "oracle_fsc05_A": round(best, 2), "ratio": round(ours / best, 3)}
    middle = seen.box_px // 2
    planes = [np.stack([volume.take(middle, axis) for axis in range(3)]) for volume in (made.volume, oracle)]
    return numbers, np.stack(planes).astype(np.float16)


def slices_path(key: str) -> Path:
    """Where a cell keeps the slices of its averages."""
    return harness.RESULTS / f"{NAME}.d" / f"{key}.npz"


def one(left_out: str, size: Size, key: str) -> dict[str, Any]:
    """Leave one complex out."""
    seen = boxes(CLASSES, size.test, size.test, 2)
    truth = seen.particles["class"].to_numpy().astype(str)
    with tempfile.TemporaryDirectory() as folder:
        named, cluster, novelty = explored(without(left_out, size, Path(folder)), seen)
    number, purity, completeness = own_cluster(truth, cluster, left_out)
    known = (truth != left_out) & (truth != BACKGROUND)
    numbers = {
        "name": left_out,
        "kda": round(load_structure(left_out).mass_kda, 1),
        "discovered": purity >= OWN_SHARE,
        "recovered": False,
        **aurocs(truth, left_out, novelty),
        "clusters": int(cluster.max()),
        "purity": round(purity, 3),
        "completeness": round(completeness, 3),
        "known_accuracy": round(float(np.mean(named[known] == truth[known])), 4),
        "fsc05_A": None,
        "oracle_fsc05_A": None,
        "ratio": None,
    }
    rows = np.flatnonzero(cluster == number)
    if len(rows) < FEWEST or np.count_nonzero(truth[rows] == left_out) < 2:
        return numbers
    found, planes = averaged(seen, rows, left_out, size)
    path = slices_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, slices=planes)
    return {**numbers, **found, "recovered": numbers["discovered"] and found["ratio"] <= RATIO}


def picture(cells: dict[str, dict[str, Any]], path: Path) -> None:
    """Central slices of blind averages over those of the oracle, recovered ones first, as a PNG."""
    shown = sorted(
        (key for key in cells if slices_path(key).exists()), key=lambda k: (not cells[k]["recovered"], -cells[k]["kda"])
    )
    figure = Figure(figsize=(1.25 * len(shown), 3.1), dpi=150, layout="constrained")
    for column, key in enumerate(shown):
        cell = cells[key]
        with np.load(slices_path(key), allow_pickle=False) as file:
            planes = file["slices"].astype(np.float32)
        for row, (what, images) in enumerate(zip(("blind", "oracle"), planes, strict=True)):
            axes = figure.add_subplot(2, len(shown), row * len(shown) + column + 1)
            axes.imshow(images[0], cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(what)
            if row == 0:
                verdict = "recovered" if cell["recovered"] else "discovered" if cell["discovered"] else "not found"
                axes.set_title(f"{cell['name']}, {cell['kda']:.0f} kDa\n{verdict}", fontsize=7)
            else:
                axes.set_xlabel(f"{cell['fsc05_A']:.0f} / {cell['oracle_fsc05_A']:.0f} Å", fontsize=7)
    with replacing(path) as part:
        figure.savefig(part, format="png")


def digest(size: Size) -> str:
    """What decides a cell besides its name, in eight letters."""
    from tomotif.models import architecture

    network = Path(inspect.getfile(architecture(size.model).build)).read_text(encoding="utf-8")
    study = repr((size, SNR, NEIGHBOURS, CLASSES, ClassifierSettings(), DiscoverSettings()))
    code = network + "".join(map(inspect.getsource, (discovery, clustering, scoring)))
    return blake2b((study + code).encode(), digest_size=4).hexdigest()


def main(quick: bool) -> dict[str, Any]:
    """Leave each complex out."""
    size, prefix = (QUICK, "quick_") if quick else (FULL, "")
    keys = {name: f"{prefix}{name}_{digest(size)}" for name in size.complexes}
    cells = {
        key: harness.measured(harness.cell(NAME, key, partial(one, name, size, key))) for name, key in keys.items()
    }
    if not quick:
        picture(cells, Path(__file__).parent.parent / "docs" / "images" / "leave_one_out.png")
    found = list(cells.values())
    heavy = [cell for cell in found if cell["kda"] >= HEAVY_KDA]
    return {
        "complexes": found,
        "snr_by_class": snr_of(size.complexes, settings_of(size.test, size.test)),
        "auroc_mean": round(float(np.mean([cell["auroc"] for cell in found])), 4),
        "auroc_alone_mean": round(float(np.mean([cell["auroc_alone"] for cell in found])), 4),
        "auroc_mean_by_score": {
            kind: round(float(np.mean([cell["auroc_by_score"][kind] for cell in found])), 4) for kind in SCORES
        },
        "discovered_fraction": round(float(np.mean([cell["discovered"] for cell in heavy])), 3),
        "recovered_fraction": round(float(np.mean([cell["recovered"] for cell in heavy])), 3),
    }


if __name__ == "__main__":
    harness.run(NAME, main)
