"""Patterns without labels from an encoder: embeddings of boxes in several views → which kinds there are, how sure.

What an encoder learned in order to tell random assemblies apart (``tools/pretrain_encoders.py``) also places complexes
that it never saw: in the directions in which its own classes differ, in units of the spread inside them, what is left
between particles is structure, not pose, wedge or noise. The turns by 180° that keep the missing wedge show each
particle several times for nothing: the mean of these views is what is clustered, and views that fall to other kinds
tell how sure that is. The stronger a particle's contrast, the further it lies from the middle. Where distances vary
much inside the kinds that were found, they are levelled; the kinds found then show what differs inside a kind in these
very tomograms, and particles are grouped again where that counts less: pseudo-labels and features in turn, as in deep
iterative clustering, with a linear layer for a network. Not here: the embeddings (engine.predict), pictures of the
patterns (average).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import InputError, Settings
from tomotif.engine.model_folder import Known
from tomotif.ops.clustering import by_size
from tomotif.ops.kinds import gaussians, kinds_of, principal, some_of
from tomotif.ops.novelty import ClassGaussians

FEWEST = 20
"""Particles that are too few to look for patterns among."""
SHARPENED = 60
"""Principal components in which the spread inside patterns is measured."""
VARIES = 0.22
"""Spread of contrast inside patterns from which distances are levelled: more than simulated particles of equal contrast
and a real cell show, less than particles whose contrasts vary by 60 %."""
FEW = 24
"""Members of a pattern that say nothing yet of its spread."""


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
    levelled: bool | None = None
    """Whether how far a particle stands out hardly counts; by default where contrast varies much inside patterns."""
    rounds: int = Field(default=2, ge=0)
    """Where it hardly counts: how often the patterns found say what differs inside a pattern, and all are grouped
    again."""
    seed: int = 0
    """Seed of the clustering."""


@dataclass(frozen=True, eq=False)
class Clustered:
    """Patterns of particles.

    Attributes
    ----------
    labels
        Index of each particle's pattern from 0, the largest first, shape (n,).
    contrast_spread
        How much contrast varies inside patterns, relative to its mean, before distances were levelled.
    levelled
        Whether they were.
    """

    labels: NDArray[np.int64]
    contrast_spread: float
    levelled: bool


def cluster_views(views: Float[np.ndarray, "v n f"], known: Known, settings: PatternClusterSettings) -> Clustered:
    """Group particles by their embeddings.

    Parameters
    ----------
    views
        Embeddings of n particles, each seen in v ways.
    known
        Where the encoder places particles of its own classes.
    settings
        Number of patterns, or what counts as one.

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
    >>> cluster_views(new, known, PatternClusterSettings()).labels.reshape(2, 30).std(axis=1).tolist()
    [0.0, 0.0]
    """
    count = views.shape[1]
    least = max(FEWEST, settings.patterns or 0)
    if count < least:
        raise InputError(
            f"expected at least {least} particles to find patterns among, got {count}; pick more, or ask for fewer "
            "--patterns"
        )
    placed = Space.of(known).place(views.mean(axis=0))
    labels = grouped(placed, settings)
    spread = contrast_spread(placed, labels)
    levelled = spread > VARIES if settings.levelled is None else settings.levelled
    if levelled:
        placed = level(placed)
        labels = grouped(placed, settings)
        for _ in range(settings.rounds):
            if not labels.any():  # one pattern: nothing differs
                break
            labels = grouped(sharpened(placed, labels), settings)
    return Clustered(labels, spread, levelled)


def contrast_spread(placed: Float[np.ndarray, "n g"], labels: Int[np.ndarray, " n"]) -> float:
    """Standard deviation of the particles of a pattern along its direction from the middle, over its distance.

    The mean of all patterns that are large enough, each as often as it has members; 0 where there is none.

    >>> pattern = 20 * np.linspace(0.5, 1.5, 40)[:, None] * np.array([1.0, 0])
    >>> round(contrast_spread(pattern, np.zeros(40, dtype=int)), 2)
    0.3
    """
    weights, found = [], []
    for one in np.flatnonzero(np.bincount(labels) >= FEW):
        mine = placed[labels == one]
        middle = mine.mean(axis=0)
        weights.append(len(mine))
        found.append(float(np.std(mine @ middle) / (middle @ middle)))
    return float(np.average(found, weights=weights)) if found else 0.0


@dataclass(frozen=True, eq=False)
class Space:
    """Where an encoder's features are compared.

    Attributes
    ----------
    known
        Classes of the encoder.
    middle
        Mean of the particles that it learned from, shape (g,).
    levelled
        Whether distances from the middle are levelled.
    """

    known: ClassGaussians
    middle: NDArray[np.float64]
    levelled: bool = False

    @classmethod
    def of(cls, known: Known, *, levelled: bool = False) -> Space:
        """The space of an encoder."""
        own = ClassGaussians.of(known.learned, known.learned_class)
        return cls(own, own.discriminants(known.learned).mean(axis=0), levelled)

    def place(self, embedding: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n g"]:
        """Particles from the middle along the discriminants of the encoder's classes."""
        placed = self.known.discriminants(embedding) - self.middle
        return level(placed) if self.levelled else placed


def level(features: Float[np.ndarray, "n g"]) -> Float[np.ndarray, "n g"]:
    """Directions of features; those that are no longer than the spread inside a kind stay short.

    Lengths follow contrast. Features of noise have a direction too, which means nothing: within √g, the length of
    what is left of g features of unit spread, they stay nearly as they are.

    >>> np.linalg.norm(level(np.array([[1.0, 0], [10.0, 0], [100.0, 0]])), axis=1).round(2).tolist()
    [0.82, 1.4, 1.41]
    """
    reach = features.shape[1]
    squared = np.sum(features**2, axis=1, keepdims=True)
    made: NDArray[np.float64] = np.asarray(features, np.float64) / np.sqrt(1 + squared / reach)
    return made


def sharpened(placed: Float[np.ndarray, "n g"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
    """Particles in units of the spread inside groups, in all directions along which particles differ most.

    What the next grouping sees: Ding and Li 2007, ICML (discriminants of one's own clusters); Zeng et al. 2023, Proc
    Natl Acad Sci USA 120:e2213149120 (a network that learns them). Directions in which no group differs are kept.
    """
    seen = principal(placed, SHARPENED)
    made: NDArray[np.float64] = seen @ ClassGaussians.of(seen, labels).whitening
    return made


def grouped(placed: Float[np.ndarray, "n g"], settings: PatternClusterSettings) -> Int[np.ndarray, " n"]:
    """Pattern of every particle, the largest first."""
    if settings.patterns:
        seen = principal(placed, settings.components)
        rows = some_of(len(seen), settings.seed)
        return by_size(np.asarray(gaussians(seen[rows], settings.patterns).predict(seen), dtype=np.int64))
    return kinds_of(
        placed,
        components=settings.components,
        least=settings.least_particles,
        valley=settings.valley,
        seed=settings.seed,
    )


def confidence_of(
    views: Float[np.ndarray, "v n f"], known: Known, labels: Int[np.ndarray, " n"], *, levelled: bool = False
) -> Float[np.ndarray, " n"]:
    """Share of a particle's views of which the nearest other particle is of its pattern, 0 to 1."""
    space = Space.of(known, levelled=levelled)
    placed = space.place(views.mean(axis=0))
    again: NDArray[np.bool_] = np.stack([labels[nearest_other(placed, space.place(view))] == labels for view in views])
    return again.mean(axis=0)


def nearest_other(placed: Float[np.ndarray, "n f"], seen: Float[np.ndarray, "n f"]) -> Int[np.ndarray, " n"]:
    """Row of the particle nearest to each one as it is seen in a view, other than itself."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=2).fit(placed).kneighbors(seen, return_distance=False)
    own = found[:, 0] == np.arange(len(seen))
    return np.asarray(np.where(own, found[:, 1], found[:, 0]), dtype=np.int64)
