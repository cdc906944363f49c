"""Patterns without labels from an encoder: embeddings of boxes in several views → which kinds there are, how sure.

What an encoder learned in order to tell random assemblies apart (``tools/pretrain_encoders.py``) also places complexes
that it never saw: in the directions in which its own classes differ, in units of the spread inside them, what is left
between particles is structure, not pose, wedge or noise. The turns by 180° that keep the missing wedge show each
particle several times for nothing: the mean of these views is what is clustered, and views that fall to other kinds
tell how sure that is. Not here: the embeddings (engine.predict), pictures of the patterns (average).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import InputError, Settings
from tomotif.engine.model_folder import Known
from tomotif.ops.clustering import by_size
from tomotif.ops.kinds import gaussians, kinds_of, principal
from tomotif.ops.novelty import ClassGaussians

FEWEST = 20
"""Particles that are too few to look for patterns among."""


class PatternClusterSettings(Settings):
    """How particles are grouped into patterns."""

    patterns: int | None = Field(default=None, ge=1)
    """Number of patterns; none: as many as there are."""
    least_particles: int = Field(default=10, ge=4)
    """Fewest particles of a pattern, when their number is not given."""
    valley: float = Field(default=0.25, gt=0, lt=1)
    """Largest density between two patterns, relative to the sparser one; larger values take more apart."""
    components: int = Field(default=14, ge=2)
    """Principal components of the features that are looked at."""
    seed: int = 0
    """Seed of the clustering."""


def cluster_views(
    views: Float[np.ndarray, "v n f"], known: Known, settings: PatternClusterSettings
) -> Int[np.ndarray, " n"]:
    """Group particles by their embeddings.

    Parameters
    ----------
    views
        Embeddings of n particles, each seen in v ways.
    known
        Where the encoder places particles of its own classes.
    settings
        Number of patterns, or what counts as one.

    Returns
    -------
    Index of each particle's pattern from 0, the largest first.

    Raises
    ------
    InputError
        When there are too few particles.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> own = np.repeat(np.eye(4) * 9, 20, axis=0) + rng.normal(size=(80, 4))
    >>> known = Known(own, np.repeat(np.arange(4), 20), own, np.repeat(np.arange(4), 20))
    >>> new = np.repeat([[5.0, 5, 0, 0], [0, 0, 9, -3]], 30, axis=0) + rng.normal(size=(2, 60, 4)) / 3
    >>> cluster_views(new, known, PatternClusterSettings()).reshape(2, 30).std(axis=1).tolist()
    [0.0, 0.0]
    """
    count = views.shape[1]
    least = max(FEWEST, settings.patterns or 0)
    if count < least:
        raise InputError(
            f"expected at least {least} particles to find patterns among, got {count}; pick more, or ask for fewer "
            "--patterns"
        )
    own = ClassGaussians.of(known.learned, known.learned_class)
    placed = own.discriminants(views.mean(axis=0))
    if settings.patterns:
        seen = principal(placed, settings.components)
        return by_size(np.asarray(gaussians(seen, settings.patterns).predict(seen), dtype=np.int64))
    return kinds_of(
        placed,
        components=settings.components,
        least=settings.least_particles,
        valley=settings.valley,
        seed=settings.seed,
    )


def confidence_of(
    views: Float[np.ndarray, "v n f"], known: Known, labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of a particle's views of which the nearest other particle is of its pattern, 0 to 1."""
    own = ClassGaussians.of(known.learned, known.learned_class)
    placed = own.discriminants(views.mean(axis=0))
    again: NDArray[np.bool_] = np.stack(
        [labels[nearest_other(placed, own.discriminants(view))] == labels for view in views]
    )
    return again.mean(axis=0)


def nearest_other(placed: Float[np.ndarray, "n f"], seen: Float[np.ndarray, "n f"]) -> Int[np.ndarray, " n"]:
    """Row of the particle nearest to each one as it is seen in a view, other than itself."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=2).fit(placed).kneighbors(seen, return_distance=False)
    own = found[:, 0] == np.arange(len(seen))
    return np.asarray(np.where(own, found[:, 1], found[:, 0]), dtype=np.int64)
