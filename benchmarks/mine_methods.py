"""Ways of grouping boxes for the benchmark of mining: ours, four that are blind too, and the supervised ceiling.

All get the same boxes. ``voxel_pca`` and ``autoencoder`` are also told the true number of groups, which is generous.
``autoencoder``, ``disca_narrow`` and ``supervised`` learn in bfloat16, which is faster.

- ``voxel_pca``: all boxes are aligned blindly to one average of them all (one start of 200 boxes, one round of
  refinement), turned into its frame and low-passed; principal components of the voxels inside a sphere; k-means.
- ``rif_gmm``: power of the spherical harmonics on shells, 10 principal components, a mixture of Gaussians, as many as
  the Bayesian criterion says: what the field measured without alignment before deep learning.
- ``autoencoder``: the published mining (Zeng et al. 2018, J Struct Biol 202:150) on given boxes: normal pose from the
  moments, ``autoencoder3d``, k-means of the codes. 8 epochs where the published training has up to 100, which take one
  processor about ten minutes on 842 boxes. It takes steps of 32 boxes and low-passed boxes, or it would learn nothing
  in that time; boxes are scaled one by one, and the empty corners of turned boxes are zero, since there is no tomogram
  to cut them from. Where it learns nothing, it is trained once more without the penalty of the codes; where it learns
  nothing then, all boxes are one group.
- ``disca_narrow``: see :mod:`benchmarks.disca`.
- ``ours``: the shipped encoder, the mean over views of each box, the kinds that `tomotif mine` finds, and those of one
  structure joined.
- ``supervised``: ``motif3d_rif`` trained on labelled boxes of the same kind from other seeds; its answers are scored
  like clusters.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from benchmarks import disca
from tomotif.core import InputError, Subtomograms
from tomotif.core.geometry import radius_grid
from tomotif.data.augment import wedge_safe_flips
from tomotif.engine.model_folder import CARD, Known
from tomotif.engine.predict import openvino_predictor, predict_boxes
from tomotif.engine.pretrained import shipped_encoder_for, shipped_models
from tomotif.models import architecture, autoencoder3d
from tomotif.ops import clustering, moments, rotation_invariant
from tomotif.ops.clustering import clusters_of, count_by_bic
from tomotif.ops.crop import standardise, to_half
from tomotif.ops.moments import normal_poses
from tomotif.ops.rotate import sample_rotated
from tomotif.ops.rotation_invariant import shell_power
from tomotif.tasks import autoencode, average, pattern_clusters
from tomotif.tasks.autoencode import AutoencoderSettings, EncodeSettings, cluster_codes, encode, train_autoencoder
from tomotif.tasks.average import AlignSettings, align, alike, pictures
from tomotif.tasks.average.alike import join_alike
from tomotif.tasks.average.pictures import PictureSettings
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.pattern_clusters import PatternClusterSettings, cluster_views

COUNTS = range(2, 21)
"""Numbers of Gaussians that the Bayesian criterion chooses from."""
FEWEST = 10
"""Boxes to a Gaussian, on average, in what it chooses from."""
PENALTIES = (1e-4, 0.0)
"""Weights of the codes that are tried in turn until the autoencoder's pictures follow the boxes; the first is
published."""
AE_BATCH = 32
"""Boxes a step of the autoencoder; with 128, the published number, so few boxes make too few steps."""
SMOOTHING_PX = 1.0
"""Standard deviation of the Gaussian that takes noise down before voxels are compared, or pictures drawn."""
MASK_PX = 12.0
"""Radius of the sphere whose voxels are compared."""


@dataclass(frozen=True)
class Effort:
    """How much the methods that learn or align may do."""

    epochs: int = 8
    """Of the autoencoder."""
    classifier_epochs: int = 4
    rounds: int = 20
    """Of deep iterative clustering."""
    rotations: int = 2304
    """Of the blind alignment's search."""
    start_particles: int = 200
    start_resolution: float = 40.0
    """In Å, of the average that it begins with."""


FULL = Effort()
QUICK = Effort(epochs=1, classifier_epochs=2, rounds=2, rotations=576, start_particles=24, start_resolution=80.0)


@dataclass(frozen=True, eq=False)
class Given:
    """What a method is given: boxes, the true number of groups, a seed, how much it may do, and a folder of its own.

    ``more`` makes labelled boxes of other seeds, for the ceiling alone.
    """

    boxes: Subtomograms
    groups: int
    seed: int
    effort: Effort
    folder: Path
    more: Callable[[], Subtomograms]


# ---------------------------------------------------------------------------------------------- aligned voxels


def voxel_pca(given: Given) -> NDArray[np.int64]:
    """Principal components of blindly aligned voxels."""
    effort, boxes = given.effort, given.boxes
    settings = AlignSettings(
        starts=1,
        start_particles=effort.start_particles,
        start_resolution=effort.start_resolution,
        max_shift_px=2.0,
        rotations=effort.rotations,
        rounds=1,
        checks=False,
    )
    found = align(boxes, np.arange(len(boxes)), settings, np.random.default_rng(given.seed))
    turned = turned_back(boxes, found.poses.rotations, found.poses.shifts_px)
    inside = radius_grid(turned.shape[1:]) <= MASK_PX
    voxels = np.stack([ndimage.gaussian_filter(box, SMOOTHING_PX)[inside] for box in turned])
    parts = PCA(min(20, len(voxels) - 1), random_state=given.seed).fit_transform(voxels)
    return clusters_of(parts, "kmeans", given.groups, seed=given.seed)


def turned_back(boxes: Subtomograms, rotations: Rotation, shifts_px: NDArray[np.float64]) -> NDArray[np.float32]:
    """Boxes in the frame of their particles, zeros where there is nothing.

    Parameters
    ----------
    boxes
        n boxes.
    rotations
        From the particles' frame to the boxes, n of them.
    shifts_px
        Where the particles lie from the middle of their boxes, (n, 3).
    """
    turned = np.empty(boxes.stack.shape, np.float32)
    for start in range(0, len(boxes), 64):
        rows = slice(start, start + 64)
        back = rotations[rows].inv()
        shift = -back.apply(shifts_px[rows])
        turned[rows] = sample_rotated(torch.from_numpy(boxes.boxes(rows)), back, shift, size=boxes.box_px).numpy()
    return turned


# ---------------------------------------------------------------------------------------------- without alignment


def rif_gmm(given: Given) -> NDArray[np.int64]:
    """Gaussians of rotation-invariant features."""
    starts = range(0, len(given.boxes), 256)
    power = np.concatenate([shell_power(given.boxes.boxes(slice(start, start + 256))) for start in starts])
    scaled = StandardScaler().fit_transform(power)
    parts = PCA(10, random_state=given.seed).fit_transform(scaled)
    counts = [count for count in COUNTS if count <= max(2, len(parts) // FEWEST)]
    return clusters_of(parts, "gmm", count_by_bic(parts, counts, seed=given.seed), seed=given.seed)


def autoencoder(given: Given) -> NDArray[np.int64]:
    """Groups of an autoencoder's codes."""
    boxes = given.boxes
    poses = normal_poses(
        boxes.boxes(slice(None)), smoothing_px=20.0 / boxes.voxel_size, radius_px=120.0 / boxes.voxel_size
    )
    turned = turned_back(boxes, poses.rotation, poses.shift_px)
    smooth = np.stack([ndimage.gaussian_filter(box, SMOOTHING_PX) for box in turned])
    standardise(smooth, np.ones(len(smooth)))
    posed = replace(boxes, stack=to_half(smooth))
    for number, penalty in enumerate(PENALTIES):
        settings = AutoencoderSettings(
            scale="box",
            epochs=given.effort.epochs,
            batch_size=AE_BATCH,
            code_penalty=penalty,
            seed=given.seed + number,
            precision="bfloat16",
        )
        folder = given.folder / f"autoencoder{number}"
        try:
            train_autoencoder(posed, settings, folder, progress=False)
        except InputError:  # it draws the same picture for all boxes
            continue
        codes = encode(posed, folder / "model", EncodeSettings(), folder / "shards")
        return cluster_codes(codes, given.groups, seed=given.seed)[0]
    return np.zeros(len(boxes), dtype=np.int64)


def disca_narrow(given: Given) -> NDArray[np.int64]:
    """Deep iterative clustering."""
    settings = disca.DiscaSettings(rounds=given.effort.rounds, seed=given.seed)
    return disca.disca(np.asarray(given.boxes.stack), settings)


# ---------------------------------------------------------------------------------------------- ours, and the ceiling


def ours(boxes: Subtomograms, folder: Path, *, seed: int = 0) -> NDArray[np.int64]:
    """Clusters that the views of the shipped encoder agree on.

    Parameters
    ----------
    boxes
        Bright boxes.
    folder
        For what it may have to keep.
    seed
        Of the clustering.
    """
    model = shipped_encoder_for(boxes.voxel_size)
    predict = openvino_predictor(model, 32, "embedding")
    flips = wedge_safe_flips(boxes.missing_wedge)
    views = np.stack([predict_boxes(predict, boxes.stack, 32, [flip]) for flip in flips])
    labels = cluster_views(views, Known.load(model), PatternClusterSettings(seed=seed)).labels
    return join_alike(boxes, labels, PictureSettings(), folder, seed=seed)


def supervised(given: Given) -> NDArray[np.int64]:
    """Answers of a classifier that saw labelled boxes of the same kind."""
    settings = ClassifierSettings(epochs=given.effort.classifier_epochs, seed=given.seed, precision="bfloat16")
    train_classifier(given.more(), settings, given.folder, progress=False)
    predict = openvino_predictor(given.folder / "model", 32)
    logits = predict_boxes(predict, given.boxes.stack, 32, wedge_safe_flips(given.boxes.missing_wedge))
    return logits.argmax(axis=1).astype(np.int64)


METHODS: dict[str, Callable[[Given], NDArray[np.int64]]] = {
    "ours": lambda given: ours(given.boxes, given.folder, seed=given.seed),
    "voxel_pca": voxel_pca,
    "rif_gmm": rif_gmm,
    "autoencoder": autoencoder,
    "disca_narrow": disca_narrow,
    "supervised": supervised,
}
OURS, CEILING = "ours", "supervised"
COMPETITORS = tuple(name for name in METHODS if name not in (OURS, CEILING))


# ---------------------------------------------------------------------------------------------- what decides a result


def code_of(*made: Callable[..., object] | ModuleType) -> str:
    """Source of functions or modules without comments and docstrings, which decide nothing."""
    trees = [ast.parse(inspect.getsource(one)) for one in made]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not is_text(line)] or [ast.Pass()]
    return "\n".join(map(ast.unparse, trees))


def is_text(line: ast.stmt) -> bool:
    """Whether a statement is a mere string."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def code_that_decides(method: str) -> str:
    """Code and settings that decide what a method gives, beside the boxes."""
    if method == OURS:
        return code_of(ours, alike, pictures) + repr((PatternClusterSettings(), PictureSettings())) + ours_of()
    if method == CEILING:
        network = inspect.getmodule(architecture(ClassifierSettings().model).build)
        return code_of(supervised, *([network] if network else [])) + repr(ClassifierSettings())
    made: dict[str, tuple[Callable[..., object] | ModuleType, ...]] = {
        "voxel_pca": (voxel_pca, turned_back, average.blind, average.starts, average.halves),
        "rif_gmm": (rif_gmm, rotation_invariant, clustering.mixture),
        "autoencoder": (autoencoder, turned_back, moments, autoencoder3d, autoencode),
        "disca_narrow": (disca_narrow, disca, clustering.mixture),
    }
    return code_of(*made[method]) + repr((COUNTS, FEWEST, PENALTIES, AE_BATCH, SMOOTHING_PX, MASK_PX))


def ours_of() -> str:
    """Code of our clustering and joining and of what they take, and the encoders' cards, which name their weights."""
    cards = [(folder / CARD).read_text(encoding="utf-8") for folder in shipped_models("encoders").values()]
    return code_of(pattern_clusters, *taken_by(pattern_clusters, alike, pictures)) + "".join(cards)


def taken_by(*takers: ModuleType) -> list[ModuleType]:
    """Modules of operations and of averaging whose functions or classes these modules name."""
    named = [one for taker in takers for one in vars(taker).values() if inspect.isroutine(one) or inspect.isclass(one)]
    modules = {module for one in named if (module := inspect.getmodule(one)) and module not in takers}
    ours = (one for one in modules if one.__name__.startswith(("tomotif.ops.", "tomotif.tasks.average.")))
    return sorted(ours, key=lambda one: one.__name__)
