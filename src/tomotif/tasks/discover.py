"""Subdivision and discovery: embeddings → clusters, novelty of every particle → a verdict on every cluster.

What a classifier learned in order to tell its classes apart also places structures that it never saw (Xu et al. 2017,
Bioinformatics 33:i13). Embeddings are taken to the space where the spread inside the known classes is 1 in every
direction: what is left between particles there is structure. Not here: the embeddings (classify), the blind averages of
the clusters (average), and the chain of all three (pipelines.discover).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import BACKGROUND, InputError, Particles, Settings
from tomotif.engine.model_folder import Known
from tomotif.ops.calibration import softmax
from tomotif.ops.clustering import Method, clusters_of, count_by_bic, count_by_stability
from tomotif.ops.novelty import ClassGaussians, alarm_threshold, energy, neighbour_distance, shared, standardised

Score = Literal["combined", "mahalanobis", "energy", "neighbours"]
_COMBINED: tuple[Score, ...] = ("mahalanobis", "neighbours")
Kind = Literal["known class", "new structure", "junk", "mixed"]


class DiscoverSettings(Settings):
    """How particles are subdivided, and when they count as new."""

    method: Method = "gmm"
    """How to cluster: 'gmm' (Gaussians), 'kmeans' or 'hdbscan', which leaves particles out."""
    clusters: int | None = Field(default=None, ge=1)
    """Number of clusters; none: by the Bayesian information criterion ('gmm') or by bootstrap stability ('kmeans')."""
    most_clusters: int = Field(default=24, ge=2)
    """Largest number that is tried when none is given."""
    components: int = Field(default=10, ge=1)
    """Principal components of the embeddings that the clustering sees."""
    novelty: Score = "combined"
    """'mahalanobis' distance to the nearest known class, distance to known 'neighbours', the two 'combined', or
    'energy' of the logits."""
    neighbourhood: int = Field(default=20, ge=1)
    """Novelty is the mean over this many particles that lie together, for a new structure comes more than once; 1: each
    by itself."""
    false_alarms: float = Field(default=0.05, gt=0, lt=1)
    """Fraction of the known particles that may be called new."""
    seed: int = 0
    """Seed of the clustering."""


def discover(
    placed: Particles,
    logits: NDArray[np.float32],
    known: Known,
    known_logits: NDArray[np.float32],
    classes: Sequence[str],
    temperature: float,
    settings: DiscoverSettings,
) -> Particles:
    """Cluster particles in the feature space of a classifier, and say how unlike the known classes each is.

    Parameters
    ----------
    placed
        n particles with their embeddings as features.
    logits
        Of the same particles, shape (n, L).
    known
        Embeddings of particles of the known classes.
    known_logits
        Of ``known.held``.
    classes, temperature
        Of the model.
    settings
        Clusters, novelty, false alarms.

    Returns
    -------
    Particles
        The same n rows with ``class`` and ``probability``, ``cluster`` (from 1, the largest first; 0 for none),
        ``group`` (``cluster1`` …, empty for none), ``novelty`` (1 is where alarms begin) and ``is_new``.

    Raises
    ------
    InputError
        When there are fewer particles than clusters, or no embeddings.
    """
    if placed.features is None:
        raise InputError("expected particles with embeddings, got none; run tomotif features on them first")
    least = settings.clusters or 2
    if len(placed) < max(least, 8):
        raise InputError(
            f"expected at least {max(least, 8)} particles to cluster, got {len(placed)}; pick more, or ask for fewer "
            "--clusters"
        )
    gaussians = ClassGaussians.of(known.learned, known.learned_class)
    seen = reduced(placed.features @ gaussians.whitening, settings.components)
    count = settings.clusters or counted(seen, settings)
    number = 1 + clusters_of(seen, settings.method, count, seed=settings.seed)
    novelty, usual = novelties(placed.features, logits, known, known_logits, temperature, settings)
    alarm, middle = alarm_threshold(usual, settings.false_alarms), float(np.median(usual))
    return placed.with_columns(
        **{
            "class": np.array(classes, dtype=object)[logits.argmax(axis=1)],
            "probability": softmax(logits, temperature).max(axis=1),
            "cluster": number,
            "group": np.array([f"cluster{n}" if n else "" for n in number], dtype=object),
            "novelty": (novelty - middle) / max(alarm - middle, 1e-9),
            "is_new": (novelty > alarm).astype(np.int64),
        }
    )


def reduced(features: NDArray[np.floating], components: int) -> NDArray[np.float64]:
    """The directions along which particles differ most."""
    from sklearn.decomposition import PCA

    most = min(components, *features.shape)
    found: NDArray[np.float64] = PCA(most, random_state=0).fit_transform(np.asarray(features, np.float64))
    return found


def counted(features: NDArray[np.float64], settings: DiscoverSettings) -> int:
    """The number of clusters, when none is given."""
    counts = range(2, min(settings.most_clusters, len(features) // 4) + 1)
    if settings.method == "gmm":
        return count_by_bic(features, counts, seed=settings.seed)
    return count_by_stability(features, counts, seed=settings.seed) if settings.method == "kmeans" else 1


def novelties(
    features: NDArray[np.floating],
    logits: NDArray[np.floating],
    known: Known,
    known_logits: NDArray[np.floating],
    temperature: float,
    settings: DiscoverSettings,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How unlike the known classes particles are, larger is newer, and how unlike ``known.held`` are."""
    gaussians = ClassGaussians.of(known.learned, known.learned_class)
    found, usual = np.zeros(len(features)), np.zeros(len(known.held))
    for kind in _COMBINED if settings.novelty == "combined" else (settings.novelty,):
        ours, theirs = (
            score(rows, values, known, gaussians, kind, temperature)
            for rows, values in ((features, logits), (known.held, known_logits))
        )
        found += standardised(ours, theirs)
        usual += standardised(theirs, theirs)
    return (
        shared(found, gaussians.discriminants(features), settings.neighbourhood),
        shared(usual, gaussians.discriminants(known.held), settings.neighbourhood),
    )


def score(
    features: NDArray[np.floating],
    logits: NDArray[np.floating],
    known: Known,
    gaussians: ClassGaussians,
    kind: Score,
    temperature: float,
) -> NDArray[np.float64]:
    """How unlike the known classes each particle is by itself."""
    if kind == "mahalanobis":
        return gaussians.distance(features)
    if kind == "energy":
        return energy(logits, temperature)
    return neighbour_distance(known.learned, features)


@dataclass(frozen=True)
class Verdict:
    """What a cluster is, and why.

    Attributes
    ----------
    cluster, particles
        Number and size.
    kind
        A known class, a new structure, junk, or mixed.
    name
        The class that most of its particles are named, background too.
    share
        Share of the particles that are named so.
    new_share
        Share of the particles that are called new.
    reason
        One line of evidence.
    resolution
        Of its blind average in Å; None when there is none.
    """

    cluster: int
    particles: int
    kind: Kind
    name: str
    share: float
    new_share: float
    reason: str
    resolution: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        return {**values, "resolution_A": values.pop("resolution")}


NEW_SHARE, OWN_SHARE = 0.5, 0.5
"""Share of new particles from which a cluster is new, and of one name from which it is of that class."""


def verdicts(found: Particles, averages: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """What each cluster is: from the names and novelty of its particles, and from its blind average.

    Parameters
    ----------
    found
        What :func:`discover` gives.
    averages
        Entries of the averages by group, with ``resolution_A``, ``checks`` and ``warnings``; clusters may be missing.
    """
    number = found["cluster"].to_numpy(np.int64)
    return [verdict(n, found.take(number == n), averages.get(f"cluster{n}")) for n in np.unique(number[number > 0])]


def verdict(number: int, members: Particles, average: Mapping[str, Any] | None) -> Verdict:
    """What one cluster is."""
    names, counts = np.unique(members["class"].astype(str), return_counts=True)
    name, share = str(names[counts.argmax()]), float(counts.max() / len(members))
    new_share = float(members["is_new"].astype(float).mean())
    kind, reason = judged(name, share, new_share, average)
    return Verdict(
        cluster=int(number),
        particles=len(members),
        kind=kind,
        name=name,
        share=round(share, 3),
        new_share=round(new_share, 3),
        reason=reason,
        resolution=average["resolution_A"] if average else None,
    )


def judged(name: str, share: float, new_share: float, average: Mapping[str, Any] | None) -> tuple[Kind, str]:
    """Kind of a cluster, and the line that says why."""
    checks = (average or {}).get("checks") or {}
    if checks.get("is_noise"):
        return "junk", "its particles do not agree with each other better than noise does"
    if new_share >= NEW_SHARE:
        unlike = f"{new_share:.0%} of its particles are unlike all known classes"
        if average is None:
            return "mixed", f"{unlike}, but it has no average to show"
        if checks.get("is_mixture"):
            return "mixed", f"{unlike}, and they show two structures"
        return "new structure", unlike
    if share < OWN_SHARE:
        return "mixed", f"no class names half of its particles ({name} {share:.0%})"
    if name == BACKGROUND:
        return "junk", f"{share:.0%} of its particles are named background"
    return "known class", f"{share:.0%} of its particles are named {name}"
