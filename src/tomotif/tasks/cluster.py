"""Grouping without labels: subtomograms → rotation-invariant shape features → k-means → cluster per particle.

One group is proposed by shape alone: the cluster whose members look most like one strong globule (in a bacterial cell
these are the ribosomes). Not here: learned features and patterns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import InputError, Particles, Progress, Settings, Subtomograms
from tomotif.ops.shape import compactness, shape_features

RIBOSOME_LIKE = "ribosome-like"


class ClusterSettings(Settings):
    """Settings of ``cluster``."""

    clusters: int = Field(default=8, ge=2)
    """Number of clusters."""
    smoothing: float = Field(default=26.0, ge=0)
    """Standard deviation in Å of the Gaussian that takes the noise down before features are measured."""
    components: int = Field(default=10, ge=1)
    """Principal components of the features that k-means sees."""
    seed: int = 0
    """Seed of k-means."""


def all_features(
    subtomograms: Subtomograms, smoothing_px: float, *, block: int = 512, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Shape features of every box, read block by block."""
    count = len(subtomograms)
    blocks = []
    for start in range(0, count, block):
        stop = min(start + block, count)
        blocks.append(shape_features(subtomograms.boxes(slice(start, stop)), smoothing_px=smoothing_px))
        if progress is not None:
            progress(stop, count)
    return np.concatenate(blocks).astype(np.float32)


def cluster(subtomograms: Subtomograms, settings: ClusterSettings, *, progress: Progress | None = None) -> Particles:
    """Group subtomograms by shape.

    Parameters
    ----------
    subtomograms
        n boxes.
    settings
        Number of clusters, smoothing, seed.
    progress
        Called with (boxes done, boxes).

    Returns
    -------
    Particles
        The same n rows with ``cluster`` (1 is the most compact), ``compactness``, ``group`` (``"ribosome-like"`` for
        cluster 1, else empty) and the features.

    Raises
    ------
    InputError
        When there are fewer particles than clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    if len(subtomograms) < settings.clusters:
        raise InputError(
            f"expected at least as many particles as clusters, got {len(subtomograms)} particles for "
            f"{settings.clusters} clusters; pick more or ask for fewer --clusters"
        )
    features = all_features(subtomograms, settings.smoothing / subtomograms.voxel_size, progress=progress)
    scaled = StandardScaler().fit_transform(features)
    components = min(settings.components, *scaled.shape)
    seen = PCA(components, random_state=settings.seed).fit_transform(scaled)
    raw = KMeans(settings.clusters, n_init=10, random_state=settings.seed).fit_predict(seen)
    blob = compactness(features)
    means = np.array([blob[raw == k].mean() for k in range(settings.clusters)])
    rank = np.empty(settings.clusters, dtype=np.int64)
    rank[np.argsort(-means)] = np.arange(1, settings.clusters + 1)
    number = rank[raw]
    named = subtomograms.particles.with_columns(
        cluster=number, compactness=blob, group=np.where(number == 1, RIBOSOME_LIKE, "").astype(object)
    )
    return replace(named, features=features, feature_names=tuple(f"shape{i}" for i in range(features.shape[1])))


def describe_clusters(particles: Particles) -> list[dict[str, int | float | str]]:
    """Size, mean compactness and proposed group of every cluster, as plain JSON values."""
    table = particles.columns.groupby("cluster").agg(
        particles=("cluster", "size"), compactness=("compactness", "mean"), group=("group", "first")
    )
    return [
        {
            "cluster": int(str(number)),
            "particles": int(row["particles"]),
            "compactness": round(float(row["compactness"]), 4),
            "group": str(row["group"]),
        }
        for number, row in table.iterrows()
    ]
