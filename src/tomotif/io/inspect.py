"""What a file is, whether it is whole, and what its values tell of contrast and tilt range."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import skew

from tomotif.core import InputError, MissingWedge
from tomotif.io.mrc import HEADER_BYTES, VOLUME_STACK, MrcHeader, map_data, read_header, slabs
from tomotif.io.star import CENTRED, COORDINATES, Blocks, read_blocks

ContrastGuess = Literal["dark", "bright", "unsure"]

_LOW_PASS_PX, _HIGH_PASS_PX = 2.0, 8.0
_CONTRAST_CROP = (128, 256, 256)
_TILT_CROP_PX = 256
_TILT_SLICES = 64
_TILT_BIN = 2.0  # degrees
_TILT_RADII = (0.12, 0.4)  # cycles per voxel: beyond gradients and large shapes, within any circle of reconstruction
_EDGE = 0.1  # of the way from the power of the missing wedge up to that of the middle of the measured range
_NO_WEDGE = 0.2  # more power than this in the missing wedge, relative to the middle, is no missing wedge
_WIDEST_TILT = 78.0  # degrees; grids hide the beam beyond, so a wider range says that the wedge was filled in


@dataclass(frozen=True)
class VolumeStatistics:
    """Statistics of all finite values of a volume, and how many are not finite."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    not_finite: int


@dataclass(frozen=True)
class Inspection:
    """The verdict on one file.

    Parameters
    ----------
    path
        The file.
    kind
        What it is, in words.
    facts
        What was found, in the order to be shown; values are for the eye.
    problems
        Why it cannot be used as it is, one line each; empty for a good file.
    contrast
        Guess, for volumes.
    missing_wedge
        Guess of the measured tilt range, for volumes where a missing wedge is seen.
    """

    path: Path
    kind: str
    facts: dict[str, str]
    problems: tuple[str, ...] = ()
    contrast: ContrastGuess = "unsure"
    missing_wedge: MissingWedge | None = None

    @property
    def is_good(self) -> bool:
        """Whether the file can be used."""
        return not self.problems


def inspect(path: Path) -> Inspection:
    """Look at a file: star file by its suffix, everything else as MRC. A bad file gives a verdict, not an error."""
    path = Path(path)
    is_star = path.suffix == ".star"
    try:
        return _inspect_star(path) if is_star else _inspect_mrc(path)
    except InputError as error:
        return Inspection(path, "unreadable", {}, (str(error),))


def statistics(data: NDArray[Any]) -> VolumeStatistics:
    """Statistics of a volume, slab by slab.

    Parameters
    ----------
    data
        Shape (nz, ny, nx); may be memory-mapped.
    """
    low, high, total, squares, count = np.inf, -np.inf, 0.0, 0.0, 0
    for _, slab in slabs(data):
        good = slab[np.isfinite(slab)].astype(np.float64)
        if good.size:
            low, high = min(low, float(good.min())), max(high, float(good.max()))
            total, squares, count = total + float(good.sum()), squares + float(good @ good), count + good.size
    mean = total / count if count else np.nan
    deviation = float(np.sqrt(max(0.0, squares / count - mean**2))) if count else np.nan
    return VolumeStatistics(low, high, mean, deviation, data.size - count)


def guess_contrast(data: NDArray[Any]) -> ContrastGuess:
    """Whether dense matter is dark or bright: matter is rare, so its side of the histogram has the longer tail.

    The central half is band-passed (Gaussians of 2 and 8 voxels) and its skewness compared with three times the
    standard error of that of noise with as many independent values.

    Parameters
    ----------
    data
        Shape (nz, ny, nx); may be memory-mapped.
    """
    crop = central_crop(data, _CONTRAST_CROP).astype(np.float32)
    smooth = gaussian_filter(crop, _LOW_PASS_PX) - gaussian_filter(crop, _HIGH_PASS_PX)
    centre = central_crop(smooth, tuple(max(1, n // 2) for n in smooth.shape)).ravel()
    independent = centre.size / ((4 * np.pi) ** 1.5 * _LOW_PASS_PX**3)
    if centre.std() == 0 or independent < 10:
        return "unsure"
    asymmetry = float(skew(centre))
    if abs(asymmetry) < max(0.1, 3 * np.sqrt(6 / independent)):
        return "unsure"
    return "dark" if asymmetry < 0 else "bright"


def guess_missing_wedge(data: NDArray[Any]) -> MissingWedge | None:
    """The measured tilt range and tilt axis as the power spectrum shows them, None where no missing wedge is seen.

    For either axis, the power spectra of slices across it are averaged and followed over the angle in the plane of
    beam and detector; the range ends where the power drops towards that of the emptiest angles. Of both axes the one
    with less power outside its range is taken.

    Parameters
    ----------
    data
        Shape (nz, ny, nx), beam along z; may be memory-mapped.
    """
    if min(data.shape[0], max(data.shape[1:])) < 24:
        return None
    n = _TILT_CROP_PX
    across_y = central_crop(data, (n, _TILT_SLICES, n)).transpose(1, 0, 2)
    across_x = central_crop(data, (n, n, _TILT_SLICES)).transpose(2, 0, 1)
    found_y, found_x = _range_in_profile(angular_power(across_y)), _range_in_profile(angular_power(across_x))
    low, high, rest = min(found_y, found_x, key=lambda found: found[2])
    if rest > _NO_WEDGE or max(-low, high) > _WIDEST_TILT or low >= 0 or high <= 0:
        return None
    # about the tilt axis x a positive tilt measures kz = -ky tan t
    return MissingWedge(low, high, "y") if rest == found_y[2] else MissingWedge(-high, -low, "x")


def angular_power(slices: NDArray[Any]) -> NDArray[np.float64]:
    """Mean power over the angle atan(kz / kx) from -90° to 90° in bins of 2°, each radius scaled to mean 1.

    Parameters
    ----------
    slices
        Slices z × x, shape (n, nz, nx).
    """
    _, nz, nx = slices.shape
    window = np.hanning(nz)[:, None] * np.hanning(nx)[None, :]
    power = np.zeros((nz, nx // 2 + 1))
    for s in slices:  # one at a time: little memory
        flat = s.astype(np.float32)
        power += np.abs(np.fft.rfft2((flat - flat.mean()) * window)) ** 2
    kz, kx = np.meshgrid(np.fft.fftfreq(nz), np.fft.rfftfreq(nx), indexing="ij")
    radius, angle = np.hypot(kz, kx), np.degrees(np.arctan2(kz, kx))
    used = (radius >= _TILT_RADII[0]) & (radius < _TILT_RADII[1])
    ring = np.round(radius[used] * min(nz, nx)).astype(np.int64)
    per_ring = np.bincount(ring, power[used]) / np.maximum(1, np.bincount(ring))
    scaled = power[used] / np.maximum(per_ring[ring], np.finfo(np.float64).tiny)
    bins = int(180 / _TILT_BIN)
    index = np.minimum(((angle[used] + 90) / _TILT_BIN).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.flatnonzero(count)  # of small volumes some bins hold no coefficient
    return np.interp(np.arange(bins), filled, np.bincount(index, scaled, minlength=bins)[filled] / count[filled])


def _range_in_profile(profile: NDArray[np.float64]) -> tuple[float, float, float]:
    """Lower and upper edge in degrees of the measured range about 0°, and the relative power outside it."""
    angles = (np.arange(len(profile), dtype=np.float64) + 0.5) * _TILT_BIN - 90
    middle = float(np.mean(profile[np.abs(angles) < 30]))
    floor = float(np.sort(profile)[: max(3, len(profile) // 18)].mean())  # the emptiest 10°
    centre = len(profile) // 2
    high = _edge(angles[centre:], profile[centre:], floor, middle)
    low = -_edge(-angles[centre - 1 :: -1], profile[centre - 1 :: -1], floor, middle)
    outside = (angles > high + 2 * _TILT_BIN) | (angles < low - 2 * _TILT_BIN)
    rest = float(profile[outside].mean()) / middle if outside.any() and middle > 0 else np.inf
    return low, high, rest


def _edge(angles: NDArray[np.float64], profile: NDArray[np.float64], floor: float, middle: float) -> float:
    """Where a profile that may fall slowly (thick specimens) drops to the floor: half of its height just before."""
    outermost = _crossing(angles, profile, floor + _EDGE * (middle - floor))
    before = (angles > outermost - 10) & (angles < outermost - 4)
    height = float(profile[before].mean()) if before.any() else middle
    return _crossing(angles, profile, floor + (height - floor) / 2)


def _crossing(angles: NDArray[np.float64], profile: NDArray[np.float64], threshold: float) -> float:
    """First angle at which the profile falls below the threshold, between bins by interpolation; 90 if never."""
    below = np.flatnonzero(profile < threshold)
    if not len(below):
        return 90.0
    i = int(below[0])
    if i == 0:
        return float(angles[0])
    fraction = (profile[i - 1] - threshold) / (profile[i - 1] - profile[i])
    return float(angles[i - 1] + fraction * _TILT_BIN)


def central_crop(data: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The middle of an array, at most of this shape."""
    starts = [max(0, (n - m) // 2) for n, m in zip(data.shape, shape, strict=True)]
    return np.asarray(data[tuple(slice(s, s + m) for s, m in zip(starts, shape, strict=True))])


def _inspect_mrc(path: Path) -> Inspection:
    """Header, values and guesses of an MRC file."""
    header = read_header(path)
    is_stack = header.space_group >= VOLUME_STACK
    facts = _header_facts(header)
    is_images = header.space_group == 0 and path.suffix == ".mrcs"
    kind = "MRC volume stack" if is_stack else "MRC image stack" if is_images else "MRC volume"
    try:
        data = map_data(path, header)
    except InputError as error:
        return Inspection(path, kind, facts, (str(error),))
    found = statistics(data)
    facts |= {
        "values": f"{found.minimum:g} to {found.maximum:g}, mean {found.mean:g}, deviation {found.deviation:g}",
        "not finite": f"{found.not_finite:,} of {data.size:,} voxels" if found.not_finite else "none",
    }
    problems = _mrc_problems(header, found)
    if header.size > header.expected_size:
        facts["note"] = f"{header.size - header.expected_size:,} bytes after the data"
    if is_stack or is_images or problems:
        return Inspection(path, kind, facts, problems)
    contrast, wedge = guess_contrast(data), guess_missing_wedge(data)
    facts["contrast"] = {
        "dark": "dark (dense matter is low), by its skewness",
        "bright": "bright (dense matter is high), by its skewness",
        "unsure": "unsure; give --contrast",
    }[contrast]
    facts["tilt range"] = (
        f"about {wedge.tilt_min:.0f}° to {wedge.tilt_max:.0f}°, tilt axis {wedge.tilt_axis}, by its power spectrum"
        if wedge
        else "unsure, no missing wedge is seen in the power spectrum"
    )
    return Inspection(path, kind, facts, problems, contrast, wedge)


def _header_facts(header: MrcHeader) -> dict[str, str]:
    nz, ny, nx = header.shape
    shape = f"{nz} × {ny} × {nx} voxels (zyx)"
    if header.space_group >= VOLUME_STACK:
        shape = f"{nz // header.depth} boxes of {header.depth} × {ny} × {nx} voxels (zyx)"
    voxel = "unknown, give --voxel-size" if header.voxel_size is None else f"{header.voxel_size:.4g} Å"
    extended = header.offset - HEADER_BYTES
    return {
        "mode": f"{header.mode} ({header.dtype.name if header.dtype is not None else 'not supported'})",
        "shape": shape,
        "voxel size": voxel,
        "origin": " ".join(f"{o:g}" for o in header.origin) + " Å (zyx)",
        **({"extended header": f"{extended:,} bytes"} if extended else {}),
    }


def _mrc_problems(header: MrcHeader, found: VolumeStatistics) -> tuple[str, ...]:
    problems = []
    if found.not_finite:
        problems.append(f"{found.not_finite:,} voxels are NaN or infinite; mask or interpolate them")
    if found.minimum == found.maximum:
        problems.append(f"every voxel is {found.minimum:g}; there is nothing to find")
    if header.voxel_size is not None and not header.is_isotropic:
        edges = " × ".join(f"{edge:.4f}" for edge in header.spacing)
        problems.append(f"voxels are not cubic: {edges} Å (zyx); resample, or give --voxel-size if the header is wrong")
    return tuple(problems)


def _inspect_star(path: Path) -> Inspection:
    """Rows, columns and origin of a star file."""
    blocks = read_blocks(path)
    loops = {name: block for name, block in blocks.items() if isinstance(block, pd.DataFrame)}
    version = relion_version(blocks)
    for name, loop in loops.items():
        if all(c in loop for c in CENTRED) or all(c in loop for c in COORDINATES):
            return _inspect_table(path, "particles", name, loop, version, ("rlnTomoName", "rlnMicrographName"))
    for name, loop in loops.items():
        if "rlnTomoName" in loop:
            return _inspect_table(path, "tomograms", name, loop, version, ("rlnTomoTiltSeriesPixelSize",))
    name, loop = max(loops.items(), key=lambda item: len(item[1]), default=("", pd.DataFrame()))
    facts = {"blocks": ", ".join(f"{key or '(unnamed)'}" for key in blocks), "columns": ", ".join(map(str, loop))}
    problem = f"neither particles ({', '.join(CENTRED)} or {', '.join(COORDINATES)}) nor tomograms (rlnTomoName)"
    return Inspection(path, "star file", facts, (problem,))


def _inspect_table(
    path: Path, what: str, block: str, loop: pd.DataFrame, version: str, one_of: tuple[str, ...]
) -> Inspection:
    facts = {"rows": f"{len(loop):,} {what}", "written by": version}
    if "rlnTomoName" in loop and what == "particles":
        facts["tomograms"] = f"{loop['rlnTomoName'].nunique():,}"
    facts["columns"] = ", ".join(map(str, loop.columns))
    missing = not any(column in loop for column in one_of)
    problems = (f"expected a column {' or '.join(one_of)} in block {block!r}",) if missing else ()
    return Inspection(path, f"star file of {what}", facts, problems)


def relion_version(blocks: Blocks) -> str:
    """Which program wrote a star file, as far as its labels tell.

    Parameters
    ----------
    blocks
        As :func:`tomotif.io.star.read_blocks` gives them.
    """
    labels = {str(label) for block in blocks.values() if block is not None for label in block}
    if any(label.startswith("tomotif") for label in labels):
        return "tomotif"
    if labels & {*CENTRED, "rlnTomoSubTomosAre2DStacks", "rlnTomoReconstructedTomogram", "rlnTomoTiltSeriesStarFile"}:
        return "RELION 5, or for it"
    if labels & {"rlnTomoParticleName", "rlnTomoTiltSeriesName", "rlnTomoSubtomogramBinning"}:
        return "RELION 4, or for it"
    return "RELION 3.1, or for it" if "optics" in blocks else "RELION 3.0 or older, or for it"
