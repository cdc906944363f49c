"""Tilt series on disk: an MRC stack of images, a star file in the style of RELION 5 and the tilts as text for IMOD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomotif.core import InputError, TiltSeries
from tomotif.core.missing_wedge import TiltAxis
from tomotif.io.files import allocate, replacing
from tomotif.io.mrc import HEADER_BYTES, map_data, new_header, read_header
from tomotif.io.star import read_blocks, write_blocks

IMAGE_STACK = 0
"""Space group number that says that an MRC file holds a stack of images."""

_COARSEST = 0.01
"""Rounding to float16 may be off by this fraction of the images' standard deviation."""

_NEEDED = (
    "rlnTomoTiltSeriesPixelSize",
    "rlnMicrographName",
    "rlnTomoNominalStageTiltAngle",
    "rlnMicrographPreExposure",
    "rlnDefocusU",
)


def write_tilt_series(path: Path, series: TiltSeries) -> None:
    """Write a tilt series as MRC stack, ``.star`` and ``.rawtlt``, all of them or none.

    Images are in order of angle: float16 where that is safe (see :func:`fits_float16`), else float32. A positive tilt
    is positive for IMOD and RELION too, whose ``rlnTomoYTilt`` (``rlnTomoXTilt`` for the axis x) turns the specimen.

    Parameters
    ----------
    path
        The stack, such as ``series.mrcs``; the other files lie beside it.
    series
        What to write.

    Raises
    ------
    OutputError
        When the place cannot be written or is full.
    """
    path = Path(path)
    order = np.argsort(series.tilt_angles, kind="stable")
    images = np.asarray(series.images)[order]
    dtype = np.float16 if fits_float16(images) else np.float32
    star, tilts = path.with_suffix(".star"), path.with_suffix(".rawtlt")
    with replacing(path) as stack_part, replacing(tilts) as tilts_part, replacing(star) as star_part:
        write_images(stack_part, images.astype(dtype, copy=False), series.pixel_size)
        tilts_part.write_text("".join(f"{angle:.6g}\n" for angle in series.tilt_angles[order]), encoding="utf-8")
        write_blocks(star_part, {series.name: table_of_tilts(series, order, path.name)})


def open_tilt_series(path: Path) -> TiltSeries:
    """Open a tilt series that :func:`write_tilt_series` wrote, its images memory-mapped.

    Parameters
    ----------
    path
        The stack or its star file.

    Raises
    ------
    InputError
        When a file is missing or damaged, or the star file lacks columns or counts other images than the stack has.
    """
    star = Path(path).with_suffix(".star")
    (name, table), *_ = read_blocks(star).items()
    if not isinstance(table, pd.DataFrame) or not set(_NEEDED) <= set(table):
        raise InputError(f"expected the columns {', '.join(_NEEDED)} in {star}; give the star file of a tilt series")
    stack = star.with_name(str(table["rlnMicrographName"].iloc[0]).split("@")[-1])
    images = map_data(stack, read_header(stack))
    if len(images) != len(table):
        raise InputError(f"expected {len(table)} images in {stack} as {star} says, got {len(images)}; write it again")
    numbers = table[[label for label in _NEEDED if label != "rlnMicrographName"]].astype(float)
    axis: TiltAxis = "x" if "x" in set(table.get("tomotifTiltAxis", ())) else "y"
    return TiltSeries(
        images=images,
        pixel_size=float(numbers["rlnTomoTiltSeriesPixelSize"].iloc[0]),
        tilt_angles=numbers["rlnTomoNominalStageTiltAngle"].to_numpy(),
        exposure=numbers["rlnMicrographPreExposure"].to_numpy(),
        defocus_um=numbers["rlnDefocusU"].to_numpy() / 1e4,
        name=name,
        tilt_axis=axis,
    )


def fits_float16(images: NDArray[np.floating]) -> bool:
    """Whether float16 keeps images: nothing overflows, and rounding is small against the standard deviation.

    >>> fits_float16(np.random.default_rng(0).normal(size=100)), fits_float16(np.array([1e5, 0.0]))
    (True, False)
    >>> fits_float16(1000 + np.random.default_rng(0).normal(size=100))  # steps of 0.5 between values
    False
    """
    largest, deviation = float(np.abs(images).max()), float(np.std(images, dtype=np.float64))
    if largest >= float(np.finfo(np.float16).max):
        return False
    return float(np.spacing(np.float16(largest))) <= 2 * _COARSEST * deviation


def write_images(path: Path, images: NDArray[np.floating], pixel_size: float) -> None:
    """Write images (tilts, y, x) as an MRC image stack."""
    header = new_header(images.shape, images.dtype, pixel_size, depth=1)
    header["ispg"] = IMAGE_STACK
    wide = images.astype(np.float64)
    for key, value in zip(
        ("dmin", "dmax", "dmean", "rms"), (wide.min(), wide.max(), wide.mean(), wide.std()), strict=True
    ):
        header[key] = value
    allocate(path, HEADER_BYTES + images.nbytes)
    with path.open("r+b") as file:
        file.write(header.tobytes())
        file.write(np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("<")).data)


def table_of_tilts(series: TiltSeries, order: NDArray[np.int64], stack: str) -> pd.DataFrame:
    """One row an image with RELION 5's labels, cells as text."""
    n = len(order)
    angles, still = text(series.tilt_angles[order]), ["0"] * n
    defocus = text(series.defocus_um[order] * 1e4)
    about_y = series.tilt_axis == "y"
    return pd.DataFrame(
        {
            "rlnTomoTiltSeriesPixelSize": text(np.full(n, series.pixel_size)),
            "rlnMicrographName": [f"{number:06d}@{stack}" for number in range(1, n + 1)],
            "rlnTomoNominalStageTiltAngle": angles,
            "rlnTomoNominalTiltAxisAngle": ["0" if about_y else "90"] * n,
            "rlnMicrographPreExposure": text(series.exposure[order]),
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus,
            "rlnDefocusAngle": still,
            "rlnTomoXTilt": still if about_y else angles,
            "rlnTomoYTilt": angles if about_y else still,
            "rlnTomoZRot": still,
            "rlnTomoXShiftAngst": still,
            "rlnTomoYShiftAngst": still,
            "tomotifTiltAxis": [series.tilt_axis] * n,
        }
    )


def text(values: NDArray[np.floating]) -> list[str]:
    """Shortest digits to nine places, which hide the last bit of a unit's conversion."""
    return [f"{value:.9g}" for value in values]
