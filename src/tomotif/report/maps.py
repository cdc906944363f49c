"""Maps of features: particles in the plane, neighbours together, each linked to the central slices of its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError
from tomotif.report.blocks import Projection
from tomotif.report.figures import png
from tomotif.report.gallery import box_image
from tomotif.report.palette import NEUTRAL, Palette, Style
from tomotif.report.runs import Run, input_folder
from tomotif.report.slices import Legend

POINTS = 400  # particles shown at most: their slices make up most of the page's size
FEWEST = 5
COMPONENTS, PERPLEXITY, SEED = 30, 30.0, 0
NEIGHBOURS = 15  # of UMAP
WIDTH, HEIGHT, MARGIN = 640.0, 440.0, 14.0
TILE_PX, COLUMNS = 40, 20  # largest edge of a slice in pixels, and slices side by side in the sheet


@dataclass(frozen=True)
class Point:
    """One particle of a map, in units of the drawing."""

    x: float
    y: float
    style: Style
    title: str


@dataclass(frozen=True)
class Sheet:
    """Central slices of many boxes in one grey PNG; ``width`` to ``tile_height`` in pixels, tiles row by row."""

    image: str
    width: int
    height: int
    tile_width: int
    tile_height: int
    columns: int


@dataclass(frozen=True)
class FeatureMap:
    """A map with its legend; the i-th point's slices are the i-th tile of the sheet."""

    name: str
    points: list[Point]
    legend: list[Legend]
    sheet: Sheet
    width: float = WIDTH
    height: float = HEIGHT
    scale: None = None


def some_rows(count: int, most: int = POINTS, *, seed: int = SEED) -> NDArray[np.intp]:
    """All rows of a table, or ``most`` of them drawn at random, in their order.

    >>> some_rows(3).tolist(), len(some_rows(1000)), some_rows(1000).tolist() == some_rows(1000).tolist()
    ([0, 1, 2], 400, True)
    """
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False)).astype(np.intp)


def plane(features: NDArray[np.floating], *, projection: Projection = "t-sne", seed: int = SEED) -> NDArray[np.float64]:
    """Particles in the plane such that neighbours in the space of features stay neighbours.

    t-SNE (van der Maaten, Hinton 2008, J Mach Learn Res 9:2579) or UMAP (McInnes et al. 2018, arXiv:1802.03426) of the
    principal components, begun from them.

    Parameters
    ----------
    features
        One row a particle, shape (n, f), n ≥ 5 and f ≥ 2.
    projection
        ``"t-sne"``, or ``"umap"`` where umap-learn is installed.
    seed
        Of the principal components and of the projection.

    Returns
    -------
    NDArray[float64], shape (n, 2)
        No unit; distances between far groups mean nothing.

    Raises
    ------
    InputError
        When there are too few particles or features, or the features are not finite or all the same.
    """
    if len(features) < FEWEST or features.shape[1] < 2:
        raise InputError(
            f"expected {FEWEST} particles or more with two features or more to map, got {len(features)} with "
            f"{features.shape[1]}; the map is not shown"
        )
    if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
        raise InputError("expected finite features that differ between particles, got others; the map is not shown")
    from sklearn.decomposition import PCA

    rows = np.asarray(features, np.float64)
    seen = PCA(min(COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
    if projection == "umap":
        from umap import UMAP

        neighbours = min(NEIGHBOURS, len(rows) - 1)
        mapper = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
    else:
        from sklearn.manifold import TSNE

        mapper = TSNE(perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=seed)
    return np.asarray(mapper.fit_transform(seen), np.float64)


def whitened(run: Run, features: NDArray[np.floating]) -> tuple[NDArray[np.floating], bool]:
    """Features in the space where the spread inside the known classes is 1, where the model folder still tells it.

    Parameters
    ----------
    run
        A run that read a model.
    features
        Shape (n, f).

    Returns
    -------
    features
        Shape (n, f).
    changed
        Whether they are in that space; else they are as they came.
    """
    from tomotif.engine.model_folder import KNOWN, Known  # takes torch
    from tomotif.ops.novelty import ClassGaussians

    folder = input_folder(run, KNOWN)
    if folder is None:
        return features, False
    known = Known.load(folder)
    if known.learned.shape[1:] != features.shape[1:]:
        return features, False  # logits, whose known ones are not kept
    return features @ ClassGaussians.of(known.learned, known.learned_class).whitening, True


def into_drawing(placed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (n, 2) turned so that they are widest along x, moved and scaled alike to fill the drawing."""
    _, axes = np.linalg.eigh(np.cov(placed.T))
    placed = placed @ axes[:, ::-1]
    low, span = placed.min(axis=0), np.maximum(np.ptp(placed, axis=0), 1e-9)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    scale = (room / span).min()
    return MARGIN + (room - scale * span) / 2 + scale * (placed - low)


def slice_sheet(stack: NDArray[np.floating], rows: NDArray[np.integer]) -> Sheet:
    """Central xy slice above central xz slice of some boxes of a memory-mapped stack, as one picture.

    Parameters
    ----------
    stack
        Shape (m, D, D, D).
    rows
        Which boxes, shape (n,), n > 0.
    """
    factor = -(-stack.shape[1] // TILE_PX)
    tiles = [box_image(np.asarray(stack[row], np.float32), factor=factor) for row in rows]
    height, width = tiles[0].shape
    columns = min(COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    grid = np.stack(tiles).reshape(-1, columns, height, width).swapaxes(1, 2).reshape(-1, columns * width)
    return Sheet(png(grid), grid.shape[1], grid.shape[0], width, height, columns)


def feature_map(
    features: NDArray[np.floating],
    names: NDArray[np.object_],
    palette: Palette,
    titles: Sequence[str],
    stack: NDArray[np.floating],
    boxes: NDArray[np.integer],
    *,
    name: str,
    projection: Projection = "t-sne",
) -> FeatureMap:
    """The map of some particles.

    Parameters
    ----------
    features
        One row a particle, shape (n, f).
    names
        What each particle is coloured by, shape (n,).
    palette
        Styles of the names.
    titles
        What is said of each particle, n texts.
    stack
        All boxes, shape (m, D, D, D), memory-mapped.
    boxes
        Each particle's row of the stack, shape (n,).
    name
        What the map is, for those who hear the page.
    projection
        As of :func:`plane`.

    Raises
    ------
    InputError
        As of :func:`plane`.
    """
    where = into_drawing(plane(features, projection=projection))
    points = [
        Point(float(x), float(y), palette[one], title) for (x, y), one, title in zip(where, names, titles, strict=True)
    ]
    legend = [Legend(style, int((names == one).sum()), False) for one, style in palette.styles.items()]
    shown = sorted((e for e in legend if e.count), key=lambda e: (e.style.colour == NEUTRAL, e.style.index))
    return FeatureMap(name, points, shown, slice_sheet(stack, boxes))
