"""Score: Particles (picks, perhaps with classes) and Particles (truth) → one-to-one matches → scores.

The science happens in :mod:`tomotif.ops.metrics`; this says what counts as what. It scores positions and classes, not
orientations, and knows no weights between classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import BACKGROUND, RESIDUALS, InputError, Particles, Settings
from tomotif.ops.metrics import (
    Rates,
    class_rates,
    confusion_matrices,
    detection_rates,
    interval,
    macro_mean,
    match,
    random_positions,
    resample,
)

UNCLASSIFIED = "unclassified"

Extents = Mapping[str, tuple[float, float, float]]


class ScoreSettings(Settings):
    """How picks are compared with the truth."""

    fraction: Annotated[float, Field(gt=0)] = 0.5
    """Largest distance of a match as a fraction of the true particle's radius."""
    radius: Annotated[float, Field(gt=0)] | None = None
    """Radius of every true particle in Å; by default the truth's column `radius` says it."""
    beta: Annotated[float, Field(gt=0)] = 4.0
    """How many times recall weighs more than precision in F-beta."""
    bootstrap: Annotated[int, Field(ge=1)] = 1000
    """Number of bootstrap resamplings behind the intervals."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the resamplings that an interval holds (fraction)."""
    repeats: Annotated[int, Field(ge=1)] = 10
    """Number of random placements that the baseline is the mean of."""


@dataclass(frozen=True)
class Score:
    """Scores of a table of picks; all scores are fractions, everything is plain JSON.

    Attributes
    ----------
    counts
        Numbers of ``tomograms``, ``true`` particles, ``picks``, and picks ``rejected`` as background beforehand.
    detection
        Class-blind ``matched``, ``precision``, ``recall``, ``f1``, ``f_beta`` and ``false_per_true``.
    classes
        One entry a class: ``class``, ``true``, ``predicted``, ``correct``, ``found`` (share of its particles that any
        pick matches), and with classified picks ``precision``, ``recall``, ``f1``, ``f_beta`` (else None).
    macro_f1, macro_f_beta
        Means over the classes that have true particles, see :func:`score`; None when the picks have no classes.
    confusion
        ``true`` (row names, last ``"false"``), ``predicted`` (column names, last ``"missed"``) and ``counts``.
    random
        The same number of picks placed uniformly in the same volumes, classes and all: mean ``precision``, ``recall``,
        ``f1``, ``f_beta``, ``macro_f1`` of ``repeats`` placements; None when the volumes' sizes are unknown.
    intervals
        Bootstrap: ``unit`` that was resampled (``"tomogram"`` or ``"particle"``), ``level``, ``resamplings``, and
        [low, high] for ``detection``, ``macro_f1``, ``macro_f_beta`` and ``classes`` (F1 by class name).
    beta, fraction
        The settings behind ``f_beta`` and behind a match.
    """

    counts: dict[str, int]
    detection: dict[str, float]
    classes: list[dict[str, Any]]
    macro_f1: float | None
    macro_f_beta: float | None
    confusion: dict[str, Any]
    random: dict[str, float | None] | None
    intervals: dict[str, Any]
    beta: float
    fraction: float

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def score(
    picks: Particles,
    truth: Particles,
    settings: ScoreSettings | None = None,
    *,
    extents: Extents | None = None,
    rng: np.random.Generator | None = None,
) -> Score:
    """Compare picks with the truth.

    Picks and true particles of the same tomogram are matched one to one whatever their classes, within a fraction of
    the true particle's radius, as many as possible, then with the least summed distance. A match counts for class c
    only when both are called c. A pick called c without such a match is a false positive of c, a true particle of
    class c without such a match a false negative of c. F1 of class c is 2 TP / (2 TP + FP + FN), and macro F1 is the
    unweighted mean over the classes that have true particles; classes that were only predicted lower it through the
    particles they took from others. Picks of class ``background`` are dropped before anything else and counted as
    rejected.

    Parameters
    ----------
    picks
        Scored particles; the column ``class`` is used when there is one.
    truth
        True particles with columns ``class`` and ``radius`` (Å; or ``settings.radius``).
    settings
        How to compare.
    extents
        Size zyx in Å of each tomogram by name, for the random baseline; tomograms without true particles that are
        named here count too.
    rng
        Decides the random baseline and the resamplings; seed 0 when not given.

    Raises
    ------
    InputError
        When there is no true particle, a column is missing or incomplete, or picks lie in a tomogram that the truth
        does not know.
    """
    settings = settings or ScoreSettings()
    rng = rng or np.random.default_rng(0)
    accepted, known = without_background(picks), without_background(truth)
    if not len(known):
        raise InputError("expected true particles to score against, got none; check the truth table")
    tomograms = tomogram_names(accepted, known, extents)
    groups = {"predicted_group": codes(accepted.tomogram, tomograms), "true_group": codes(known.tomogram, tomograms)}
    true_names, labels = class_names(known, "truth"), predicted_names(accepted)
    classes = sorted({*true_names, *labels})
    predicted, true = codes(labels, classes), codes(true_names, classes)

    def tabulate(positions: NDArray[np.float64]) -> NDArray[np.int64]:
        pairs = match_groups(positions, known.position, true_radius(known, settings), settings.fraction, **groups)
        return confusion_matrices(predicted, true, pairs, len(classes), **groups, n_groups=len(tomograms))

    confusions = tabulate(accepted.position)
    total = confusions.sum(axis=0)
    named = "class" in accepted
    by_class, macro = summarise(total, settings.beta)
    unit, resampled = resample(confusions, settings.bootstrap, rng)
    baseline = None
    if extents is not None:
        sizes = np.array([extents[name] for name in tomograms], dtype=np.float64)[groups["predicted_group"]]
        placed = [tabulate(random_positions(sizes, rng)).sum(axis=0) for _ in range(settings.repeats)]
        baseline = random_baseline(np.stack(placed), settings, named)
    return Score(
        counts={
            "tomograms": len(tomograms),
            "true": len(known),
            "picks": len(accepted),
            "rejected": len(picks) - len(accepted),
        },
        detection={
            "matched": int(total[:-1, :-1].sum()),
            **plain(detection_rates(total, beta=settings.beta)),
            "false_per_true": float(total[-1].sum() / len(known)),
        },
        classes=class_table(total, classes, by_class, named),
        macro_f1=macro["macro_f1"] if named else None,
        macro_f_beta=macro["macro_f_beta"] if named else None,
        confusion=named_confusion(total, classes),
        random=baseline,
        intervals={
            "unit": unit,
            "level": settings.level,
            "resamplings": settings.bootstrap,
            **intervals(resampled, classes, settings, named),
        },
        beta=settings.beta,
        fraction=settings.fraction,
    )


def match_particles(picks: Particles, truth: Particles, settings: ScoreSettings | None = None) -> NDArray[np.int64]:
    """Rows of picks and of true particles that belong together, whatever their classes, shape (k, 2).

    Background rows take part like any other; drop them first where they should not.
    """
    settings = settings or ScoreSettings()
    names = sorted({*picks.tomogram, *truth.tomogram})
    return match_groups(
        picks.position,
        truth.position,
        true_radius(truth, settings),
        settings.fraction,
        predicted_group=codes(picks.tomogram, names),
        true_group=codes(truth.tomogram, names),
    )


def with_true_poses(picks: Particles, truth: Particles, settings: ScoreSettings | None = None) -> Particles:
    """The picks that match a true particle, with its position and orientation instead of their own.

    Where picks were extracted already their residuals are moved along, so that their boxes still belong to them. For
    simulated data, where poses are known but not yet searched for.
    """
    pairs = match_particles(picks, truth, settings)
    kept, source = picks.take(pairs[:, 0]), truth.take(pairs[:, 1])
    moved = source.position - kept.position
    residuals = {name: kept[name].astype(float) + moved[:, i] for i, name in enumerate(RESIDUALS) if name in kept}
    return replace(kept, position=source.position, orientation=source.orientation).with_columns(**residuals)


def match_groups(
    predicted: NDArray[np.float64],
    true: NDArray[np.float64],
    radius: NDArray[np.float64],
    fraction: float,
    *,
    predicted_group: NDArray[np.int64],
    true_group: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Match within each group (tomogram); rows refer to the whole tables, shape (k, 2)."""
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for group in np.intersect1d(predicted_group, true_group):
        mine, theirs = np.flatnonzero(predicted_group == group), np.flatnonzero(true_group == group)
        found = match(predicted[mine], true[theirs], radius[theirs], fraction=fraction)
        pairs.append(np.stack([mine[found[:, 0]], theirs[found[:, 1]]], axis=1))
    return np.concatenate(pairs)


def without_background(particles: Particles) -> Particles:
    """The rows that are not called background."""
    return particles.take((particles["class"] != BACKGROUND).to_numpy()) if "class" in particles else particles


def class_names(particles: Particles, what: str) -> NDArray[np.object_]:
    """Class of each row as a string.

    Raises
    ------
    InputError
        When the column is missing or has gaps.
    """
    if "class" not in particles:
        raise InputError(
            f"expected a column `class` in the {what}, got {', '.join(map(str, particles.columns)) or 'none'}"
        )
    names = particles["class"]
    gaps = int(names.isna().sum() + (names.astype(str) == "").sum())
    if gaps:
        raise InputError(
            f"expected a class in every row of the {what}, got {gaps} of {len(particles)} rows without one"
        )
    return names.astype(str).to_numpy(dtype=object)


def predicted_names(picks: Particles) -> NDArray[np.object_]:
    """Class of each pick; all one placeholder when the picks have no classes."""
    return class_names(picks, "picks") if "class" in picks else np.full(len(picks), UNCLASSIFIED, dtype=object)


def true_radius(truth: Particles, settings: ScoreSettings) -> NDArray[np.float64]:
    """Radius of each true particle in Å.

    Raises
    ------
    InputError
        When neither the table nor the settings say it.
    """
    if settings.radius is not None:
        return np.full(len(truth), settings.radius)
    if "radius" not in truth:
        raise InputError("expected a column `radius` (Å) in the truth, got none; give --radius for all particles")
    return np.asarray(pd.to_numeric(truth["radius"]), dtype=np.float64)


def tomogram_names(picks: Particles, truth: Particles, extents: Extents | None) -> list[str]:
    """Tomograms that count.

    Raises
    ------
    InputError
        When picks lie in an unknown tomogram, or a tomogram's size is not given although others are.
    """
    names = sorted({*truth.tomogram, *(extents or {})})
    unknown = sorted(set(picks.tomogram) - set(names))
    if unknown:
        raise InputError(
            f"expected picks in the truth's tomograms ({', '.join(names)}), got {unknown[0]!r}; "
            "score only the tomograms whose truth is known"
        )
    sizeless = [name for name in names if extents is not None and name not in extents]
    if sizeless:
        raise InputError(f"expected the size of every tomogram of the truth, got none for {sizeless[0]!r}")
    return names


def codes(values: NDArray[np.object_], names: list[str]) -> NDArray[np.int64]:
    """Index of each value among the names."""
    return pd.Index(names).get_indexer(pd.Index(values)).astype(np.int64)


def plain(found: Rates) -> dict[str, float]:
    """Rates of one case as plain numbers."""
    return {name: float(value) for name, value in vars(found).items()}


def summarise(confusion: NDArray[np.integer], beta: float) -> tuple[Rates, dict[str, float]]:
    """Rates of every class and their means over the true classes, of one confusion matrix."""
    found = class_rates(confusion, beta=beta)
    return found, {f"macro_{name}": float(macro_mean(getattr(found, name), confusion)) for name in ("f1", "f_beta")}


def random_baseline(confusions: NDArray[np.integer], settings: ScoreSettings, named: bool) -> dict[str, float | None]:
    """Mean scores of random placements, matrices of shape (repeats, C + 1, C + 1)."""
    found = detection_rates(confusions, beta=settings.beta)
    means: dict[str, float | None] = {name: float(np.mean(value)) for name, value in vars(found).items()}
    f1 = macro_mean(class_rates(confusions).f1, confusions)
    return {**means, "macro_f1": float(f1.mean()) if named else None, "repeats": len(confusions)}


def class_table(confusion: NDArray[np.integer], classes: list[str], found: Rates, named: bool) -> list[dict[str, Any]]:
    """One entry a class; the placeholder of unclassified picks is no class."""
    true, predicted = confusion[:-1].sum(axis=1), confusion[:, :-1].sum(axis=0)
    return [
        {
            "class": name,
            "true": int(true[i]),
            "predicted": int(predicted[i]) if named else None,
            "correct": int(confusion[i, i]) if named else None,
            "found": float(confusion[i, :-1].sum() / true[i]) if true[i] else None,
            **{key: float(value[i]) if named else None for key, value in vars(found).items()},
        }
        for i, name in enumerate(classes)
        if named or true[i]
    ]


def named_confusion(confusion: NDArray[np.integer], classes: list[str]) -> dict[str, Any]:
    """The confusion matrix with its names, without rows and columns of classes that never occur there."""
    rows, columns = ([*map(bool, confusion.sum(axis=axis)[:-1] > 0), True] for axis in (1, 0))
    # a true class keeps its column even when nothing was called so
    columns = [c or (r and UNCLASSIFIED not in classes) for c, r in zip(columns, rows, strict=True)]
    return {
        "true": [name for name, kept in zip([*classes, "false"], rows, strict=True) if kept],
        "predicted": [name for name, kept in zip([*classes, "missed"], columns, strict=True) if kept],
        "counts": confusion[np.ix_(rows, columns)].tolist(),
    }


def intervals(
    confusions: NDArray[np.integer], classes: list[str], settings: ScoreSettings, named: bool
) -> dict[str, Any]:
    """Bootstrap intervals [low, high] from resampled confusion matrices, shape (B, C + 1, C + 1)."""

    def bounds(samples: NDArray[np.float64]) -> list[float]:
        return list(interval(samples, settings.level))

    blind = {name: bounds(value) for name, value in vars(detection_rates(confusions, beta=settings.beta)).items()}
    if not named:
        return {"detection": blind, "macro_f1": None, "macro_f_beta": None, "classes": None}
    found = class_rates(confusions, beta=settings.beta)
    return {
        "detection": blind,
        "macro_f1": bounds(macro_mean(found.f1, confusions)),
        "macro_f_beta": bounds(macro_mean(found.f_beta, confusions)),
        "classes": {name: bounds(found.f1[:, i]) for i, name in enumerate(classes)},
    }
