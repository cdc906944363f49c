"""Picking: where the particles are, without templates.

Flow: ``Tomogram`` → blobs of the radii asked for → ``Particles`` with the columns ``score`` and ``radius``.

Two methods. ``"dog"`` is the published one, the difference of Gaussians of one width (Voss et al. 2009, J Struct Biol
166:205; its parameters for cellular tomograms from Zeng et al. 2018, J Struct Biol 202:150). ``"multiscale"`` looks for
solid balls of several radii. Hollow complexes and the contrast transfer function make a shell of most particles, with a
dark surrounding, and a linear filter finds the pieces of the shell. So the density is smoothed by a fraction of the
radius, all that is clearly dense counts the same, what is less dense than usual counts nothing, and only then the
scale-normalised difference of Gaussians (Lindeberg 1998, Int J Comput Vis 30:79) asks how full a ball is.

The tomogram is read in chunks with an overlap; memory does not grow with it and the result does not depend on the
chunks. Not here: templates, orientations, membranes (their patches are picked like any dense matter).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from threadpoolctl import threadpool_limits

from tomotif.core import InputError, Particles, Progress, Settings, Tomogram
from tomotif.core.settings import FloatOrNone
from tomotif.io.environment import cpu_count
from tomotif.ops.filters import (
    ball_response,
    bin_mean,
    constant_regions,
    difference_of_gaussians,
    grow,
    reach,
    robust_level,
    smooth,
)
from tomotif.ops.peaks import keep_best, local_maxima, parabolic_offset

Window = tuple[range, range, range]
Result = TypeVar("Result")

_WORKERS = 2
"""Chunks in work at a time; memory is proportional to it, the matrix products use further processors."""
_BALL = math.sqrt(2)
"""A ball of radius r has its best score at σ = r / √2: r / √3 for the response alone, but the score weighs it by r."""
_SMOOTHING = 0.3
"""Smoothing before saturation as a fraction of the ball's radius: fine enough to see the gaps between neighbours …"""
_LEAST_SMOOTHING = 0.37
"""… and at least this fraction of the smallest radius."""
_BACKGROUND = 1.25
"""Standard deviation of the slow changes of density that are taken off, as a fraction of the largest radius."""
_LARGEST_BIN = 0.7
"""Edge of a bin as a fraction of the smallest radius."""
_SATURATION = 0.5
"""Density counts in full from this share of its 99.9 % quantile on (above the median), wherever that lies …"""
_FLOOR = 0.1
"""… and nothing below this share of that."""
_SAMPLES, _SAMPLE_EDGE = 24, 64
"""Windows, and their edge in (binned) voxels, from which levels are taken."""
_LARGEST_CHUNK = 270
"""Edge in (binned) voxels of a chunk with its overlap, which decides the memory: about 0.4 GB for each worker."""
_BEAD = 30.0
"""Å around the dense core of a gold bead that are masked with it."""


class PickSettings(Settings):
    """How particles are found."""

    method: Literal["multiscale", "dog"] = "multiscale"
    """'multiscale' finds balls of several radii; 'dog' is the published difference of Gaussians of one width."""
    radius: tuple[float, float] = (40.0, 105.0)
    """Smallest and largest radius in Å of the particles sought (multiscale); the default suits 400 kDa to 3 MDa."""
    scales: int = Field(default=6, ge=2, le=16)
    """Number of radii tried between the smallest and the largest (multiscale)."""
    threshold: float = Field(default=0.6, gt=0)
    """Least score: fullness of the ball (1: solid, in empty surroundings) × radius / smallest radius (multiscale)."""
    exclusion: float = Field(default=1.0, ge=0, le=2)
    """Two picks are never closer than this times the larger one's radius (multiscale)."""
    border: float = Field(default=50.0, ge=0)
    """No pick lies closer than this, in Å, to the border of the tomogram or to a region of constant value."""
    gold_contrast: FloatOrNone = Field(default=5.0, gt=1)
    """Matter this many times denser than the tomogram's dense matter is gold, and left out; none: not looked for."""
    dog_sigma: float = Field(default=70.0, gt=0)
    """Standard deviation of the narrow Gaussian in Å, at least 2 voxels; the wide one is 1.1 times as wide (dog)."""
    dog_threshold: float = Field(default=3.0, ge=0, le=20)
    """A peak reaches mean + this × (maximum - mean) / 20 of the response (dog)."""
    chunk_px: int = Field(default=128, ge=16, le=160)
    """Edge of the chunks worked on in voxels (after binning); the result does not depend on it, the memory does."""

    @model_validator(mode="after")
    def _ordered(self) -> PickSettings:
        if not 0 < self.radius[0] < self.radius[1]:
            raise ValueError(f"expected radii 0 < smallest < largest in Å, got {self.radius[0]} and {self.radius[1]}")
        return self


def pick(tomogram: Tomogram, settings: PickSettings = PickSettings(), *, progress: Progress | None = None) -> Particles:
    """Find particles.

    Parameters
    ----------
    tomogram
        Where to look; its contrast says whether dense matter is dark.
    settings
        Method and its parameters.
    progress
        Called with (chunks done, chunks in all).

    Returns
    -------
    Particles
        Best first, orientations unknown. Columns: ``score`` (multiscale: see ``threshold``; dog: the response) and
        ``radius`` in Å.

    Raises
    ------
    InputError
        When the tomogram holds NaN or infinity or no contrast, is smaller than the smallest particle, or its voxels
        are too large for it.
    """
    find = multiscale_blobs if settings.method == "multiscale" else published_dog
    blobs = find(tomogram, settings, progress or (lambda done, total: None))
    extent = (np.asarray(tomogram.shape) - 1) * tomogram.voxel_size
    inside = np.all((blobs.position >= settings.border) & (blobs.position <= extent - settings.border), axis=1)
    blobs = blobs.take(inside)
    best = blobs.take(keep_best(blobs.position, blobs.score, blobs.distance))
    return Particles.create(tomogram.name, best.position, columns={"score": best.score, "radius": best.radius})


class _Blobs(NamedTuple):
    """Candidates: position zyx in Å, score, radius in Å, and the distance in Å they keep from others."""

    position: NDArray[np.float64]
    score: NDArray[np.float64]
    radius: NDArray[np.float64]
    distance: NDArray[np.float64]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Blobs:
        return _Blobs(*(values[rows] for values in self))


# ------------------------------------------------------------------------------------------------ several scales


class _Scale(NamedTuple):
    """One radius: standard deviations in (binned) voxels, and what a solid ball answers."""

    radius: float  # Å
    smoothing: float
    sigmas: tuple[float, float]
    ball: float


class _Levels(NamedTuple):
    """Densities that mean something, taken from the whole tomogram."""

    background: float
    gold: float  # smoothed density above which matter is gold
    saturation: tuple[
        tuple[float, float], ...
    ]  # of each scale: density that counts nothing, density that counts in full


def scales_of(settings: PickSettings, voxel: float) -> list[_Scale]:
    """The radii, in geometric steps.

    Parameters
    ----------
    settings
        Range and number of radii.
    voxel
        Edge of a (binned) voxel in Å.
    """
    smallest, largest = settings.radius
    radii = np.geomspace(smallest, largest, settings.scales)
    ratio = float(radii[1] / radii[0])
    sigmas = radii / _BALL / voxel
    return [
        _Scale(
            float(r),
            max(_SMOOTHING * float(r), _LEAST_SMOOTHING * smallest) / voxel,
            (float(s) / ratio**0.5, float(s) * ratio**0.5),
            ball_response(ratio, _BALL),
        )
        for r, s in zip(radii, sigmas, strict=True)
    ]


def multiscale_blobs(tomogram: Tomogram, settings: PickSettings, progress: Progress) -> _Blobs:
    """Maxima of the scale-normalised difference of Gaussians of the saturated density, at every scale by itself."""
    view = _View.of(tomogram, smallest_radius=settings.radius[0])
    search = _Search(view, scales_of(settings, view.voxel), settings)
    samples, cores = sample_windows(view.shape), chunks(view, settings, search.overlap)
    report = _Counter(progress, 2 * len(samples) + len(cores))
    levels = search.levels(samples, report)
    found = list(in_threads(lambda core: search.peaks(core, levels), cores, report))
    index, score, radius = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _Blobs(view.position(index), score, radius, settings.exclusion * radius)


@dataclass(frozen=True)
class _Search:
    """The search for balls in one tomogram."""

    view: _View
    scales: list[_Scale]
    settings: PickSettings

    @property
    def gold_smoothing(self) -> float:
        """Standard deviation in (binned) voxels at which density is judged to be gold."""
        return self.scales[0].smoothing

    @property
    def background_sigma(self) -> float:
        """Standard deviation in (binned) voxels of the slow changes of density that are taken off."""
        return _BACKGROUND * self.settings.radius[1] / self.view.voxel

    def levels(self, samples: Sequence[Window], report: _Counter) -> _Levels:
        """What background, gold, and clearly dense matter are, from sampled windows."""
        plain = np.concatenate(list(in_threads(self._smoothed_sample, samples, report)))
        if not len(plain) or plain.min() == plain.max():
            raise InputError(
                f"expected a tomogram with contrast, but {self.view.tomogram.name} is constant; nothing to find"
            )
        level, deviation = robust_level(plain)
        gold = np.inf
        if self.settings.gold_contrast is not None:
            dense = plain[plain > level + 3 * deviation]
            if len(dense):
                gold = level + self.settings.gold_contrast * (float(np.quantile(dense, 0.75)) - level)
        rough = _Levels(level, gold, ())
        parts = list(in_threads(lambda window: self._scale_samples(window, rough), samples, report))
        each = [np.concatenate(scale) for scale in zip(*parts, strict=True)]
        return rough._replace(saturation=tuple(map(saturation_levels, each)))

    def _smoothed_sample(self, window: Window) -> NDArray[np.float32]:
        given = widened(window, max(reach(self.gold_smoothing), 4), self.view.shape)
        raw = self.view.read(given)
        values = smooth(raw, given, window, self.gold_smoothing)
        return values[~constant_regions(raw)[inner(window, given)]][::8]

    def _scale_samples(self, window: Window, levels: _Levels) -> list[NDArray[np.float32]]:
        given = widened(window, reach(self.scales[-1].smoothing), self.view.shape)
        density, masked = self._density(given, levels)
        valid = ~masked[inner(window, given)]
        return [smooth(density, given, window, scale.smoothing)[valid][::8] for scale in self.scales]

    def _density(self, window: Window, levels: _Levels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Density without its slow changes, and where gold or fill was replaced by background."""
        shape = self.view.shape
        wide = widened(window, reach(self.background_sigma), shape)
        seen = widened(wide, max(4, self._bead), shape)
        given = widened(seen, reach(self.gold_smoothing), shape)
        raw = self.view.read(given)
        masked = constant_regions(raw)
        if np.isfinite(levels.gold):
            beads = smooth(raw, given, seen, self.gold_smoothing) > levels.gold
            masked[inner(seen, given)] |= grow(beads, self._bead)
        raw[masked] = levels.background
        density = raw[inner(window, given)] - smooth(raw, given, window, self.background_sigma)
        return density, masked[inner(window, given)]

    def peaks(self, core: Window, levels: _Levels) -> tuple[NDArray[np.float64], ...]:
        """Peaks of one chunk: places zyx in (binned) voxels, score, and radius in Å."""
        shape = self.view.shape
        wanted = widened(core, 1, shape)
        filled = [widened(wanted, reach(scale.sigmas[1]), shape) for scale in self.scales]
        given = widened(wanted, self._margin, shape)
        density, masked = self._density(given, levels)
        near = widened(wanted, self._clearance, shape)
        blocked = grow(masked[inner(near, given)], self._clearance)[inner(wanted, near)]
        found = []
        for scale, window, (low, high) in zip(self.scales, filled, levels.saturation, strict=True):
            matter = smooth(density, given, window, scale.smoothing)
            np.clip((matter - low) / (high - low), 0, 1, out=matter)
            score = difference_of_gaussians(matter, window, wanted, scale.sigmas)
            score *= scale.radius / self.settings.radius[0] / scale.ball
            index = local_maxima(score, self.settings.threshold)
            index = index[~blocked[tuple(index.T)] & within(index, core, wanted)]
            place = index + parabolic_offset(score, index) + [axis.start for axis in wanted]
            found.append((place, score[tuple(index.T)].astype(np.float64), np.full(len(index), scale.radius)))
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    @property
    def overlap(self) -> int:
        """Voxels beyond a chunk that :meth:`peaks` reads."""
        return 1 + self._margin + reach(self.background_sigma) + max(4, self._bead) + reach(self.gold_smoothing)

    @property
    def _margin(self) -> int:
        """Voxels beyond the scores of a chunk whose density they depend on."""
        return max(self._clearance, *(reach(s.sigmas[1]) + reach(s.smoothing) for s in self.scales))

    @property
    def _clearance(self) -> int:
        return math.ceil(self.settings.border / self.view.voxel)

    @property
    def _bead(self) -> int:
        return math.ceil(_BEAD / self.view.voxel)


def saturation_levels(values: NDArray[np.floating]) -> tuple[float, float]:
    """Density that counts nothing and density that counts in full, from a sample of the smoothed density.

    The quantile lies inside particles as soon as they take up 0.1 % of the volume, and in noise it lies where noise
    rarely comes; half of it separates both sparse and crowded particles from what is between them.

    Parameters
    ----------
    values
        Smoothed densities, bright, any shape.
    """
    median, bright = np.quantile(values, (0.5, 0.999))
    full = _SATURATION * float(bright - median) or float(np.max(values) - median) or 1.0
    return float(median) + _FLOOR * full, float(median) + full


# ------------------------------------------------------------------------------------------------ the published one


def published_dog(tomogram: Tomogram, settings: PickSettings, progress: Progress) -> _Blobs:
    """Maxima of one difference of Gaussians above mean + t (max - mean) / 20, on the tomogram's own voxels."""
    view = _View.of(tomogram)
    sigma = max(settings.dog_sigma / view.voxel, 2.0)
    cores = chunks(view, settings, 1 + reach(1.1 * sigma, 4.0))
    found = list(in_threads(lambda core: _dog_peaks(view, core, sigma), cores, _Counter(progress, len(cores))))
    mean = sum(total for _, _, total, _ in found) / float(np.prod(view.shape))
    highest = max(high for _, _, _, high in found)
    score = np.concatenate([values for _, values, _, _ in found])
    index = np.concatenate([places for places, _, _, _ in found])
    high = score >= mean + settings.dog_threshold * (highest - mean) / 20
    place, response = view.position(index[high]), score[high]
    length = sigma * view.voxel
    return _Blobs(place, response, np.full(len(place), length * np.sqrt(3)), np.full(len(place), length))


def _dog_peaks(view: _View, core: Window, sigma: float) -> tuple[NDArray[np.int64], NDArray[np.float64], float, float]:
    """Places and heights of one chunk's maxima, sum and maximum of its response."""
    wanted = widened(core, 1, view.shape)
    given = widened(wanted, reach(1.1 * sigma, 4.0), view.shape)
    response = difference_of_gaussians(view.read(given), given, wanted, (sigma, 1.1 * sigma), truncate=4.0)
    index = local_maxima(response)
    index = index[within(index, core, wanted)]
    own = response[inner(core, wanted)]
    starts = [axis.start for axis in wanted]
    heights = response[tuple(index.T)].astype(np.float64)
    return index + starts, heights, float(own.sum(dtype=np.float64)), float(own.max())


# ------------------------------------------------------------------------------------------------ chunks


@dataclass(frozen=True)
class _View:
    """A tomogram on its grid of bins, dense matter bright."""

    tomogram: Tomogram
    factor: int

    @classmethod
    def of(cls, tomogram: Tomogram, *, smallest_radius: float | None = None) -> _View:
        """Bins as large as the smallest radius allows; without one, the voxels as they are."""
        voxel = tomogram.voxel_size
        if smallest_radius is None:
            return cls(tomogram, 1)
        if smallest_radius < 1.2 * voxel:
            raise InputError(
                f"expected particles of at least 1.2 voxels radius, got a smallest radius of {smallest_radius:g} Å and "
                f"voxels of {voxel:g} Å in {tomogram.name}; give a larger --radius"
            )
        if min(tomogram.volume.extent) < 2 * smallest_radius:
            raise InputError(
                f"expected a tomogram larger than a particle of {2 * smallest_radius:g} Å, got {tomogram.name} of "
                f"{' × '.join(f'{edge:g}' for edge in tomogram.volume.extent)} Å"
            )
        return cls(tomogram, max(1, int(_LARGEST_BIN * smallest_radius / voxel)))

    @property
    def voxel(self) -> float:
        """Edge of a bin in Å."""
        return self.tomogram.voxel_size * self.factor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bins along z, y and x."""
        nz, ny, nx = (n // self.factor for n in self.tomogram.shape)
        return nz, ny, nx

    def read(self, window: Window) -> NDArray[np.float32]:
        """Mean densities of a window of bins, bright."""
        where = tuple(slice(axis.start * self.factor, axis.stop * self.factor) for axis in window)
        values = bin_mean(self.tomogram.volume.data[where], self.factor)
        if not np.isfinite(values).all():
            first = np.argwhere(~np.isfinite(values))[0] * self.factor + [s.start for s in where]
            raise InputError(
                f"expected finite values in {self.tomogram.name}, got NaN or infinity near voxel "
                f"{tuple(int(i) for i in first)} (zyx); mask or interpolate such voxels first"
            )
        values *= np.float32(self.tomogram.sign)
        return values

    def position(self, place: NDArray[np.number]) -> NDArray[np.float64]:
        """Position in Å of places in bins; bin i has its centre at voxel i × factor + (factor - 1) / 2."""
        return (place.astype(np.float64) * self.factor + (self.factor - 1) / 2) * self.tomogram.voxel_size


def widened(window: Window, margin: int, shape: Sequence[int]) -> Window:
    """The window with a margin of voxels to all sides, as far as the volume goes."""
    z, y, x = (range(max(w.start - margin, 0), min(w.stop + margin, n)) for w, n in zip(window, shape, strict=True))
    return z, y, x


def inner(window: Window, given: Window) -> tuple[slice, ...]:
    """Where a window lies in an array that holds a wider one."""
    return tuple(slice(w.start - g.start, w.stop - g.start) for w, g in zip(window, given, strict=True))


def within(index: NDArray[np.int64], core: Window, given: Window) -> NDArray[np.bool_]:
    """Which indices into an array over ``given`` lie in ``core``."""
    place = index + [axis.start for axis in given]
    return np.all((place >= [axis.start for axis in core]) & (place < [axis.stop for axis in core]), axis=1)


def tiles(shape: Sequence[int], edge: int) -> list[Window]:
    """Windows of at most ``edge`` voxels that cover a volume once."""
    z, y, x = ([range(start, min(start + edge, n)) for start in range(0, n, edge)] for n in shape)
    return list(product(z, y, x))


def chunks(view: _View, settings: PickSettings, overlap: int) -> list[Window]:
    """Chunks that cover a tomogram, small enough for the memory with their overlap.

    Raises
    ------
    InputError
        When the overlap alone is too large for it.
    """
    edge = min(settings.chunk_px, _LARGEST_CHUNK - 2 * overlap)
    if edge < 16:
        what = "--dog-sigma" if settings.method == "dog" else "the largest --radius"
        raise InputError(
            f"expected {what} of at most about {round((_LARGEST_CHUNK - 16) / 2 / overlap, 1):g} times what was given, "
            f"since it reaches over {overlap} voxels of {view.voxel:g} Å in {view.tomogram.name}; bin the tomogram, or "
            "look for small and large particles apart"
        )
    return tiles(view.shape, edge)


def sample_windows(shape: Sequence[int]) -> list[Window]:
    """Windows spread evenly over a volume; they cover it when it is small."""
    every = tiles(shape, _SAMPLE_EDGE)
    if len(every) <= _SAMPLES:
        return every
    return [every[int((i + 0.5) * len(every) / _SAMPLES)] for i in range(_SAMPLES)]


@dataclass
class _Counter:
    """Counts finished chunks of several rounds into one progress."""

    progress: Progress
    total: int
    done: int = 0

    def step(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def in_threads(compute: Callable[[Window], Result], windows: Iterable[Window], report: _Counter) -> Iterator[Result]:
    """Compute windows on several threads and give the results in order."""
    with (
        threadpool_limits(max(1, cpu_count() // _WORKERS)),
        ThreadPoolExecutor(min(_WORKERS, cpu_count())) as threads,
    ):
        for result in threads.map(compute, windows):
            report.step()
            yield result
