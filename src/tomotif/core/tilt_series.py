"""TiltSeries: the images a tomogram is made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError
from tomotif.core.missing_wedge import TiltAxis


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """Projections of one specimen at several tilts, aligned: the tilt axis passes through the centre n // 2.

    Parameters
    ----------
    images
        Shape (tilts, ny, nx); dense matter is dark, as the camera sees it.
    pixel_size
        Edge of a pixel in Å.
    tilt_angles
        In degrees, shape (tilts,).
    exposure
        e/Å² the specimen had received before each image, shape (tilts,).
    defocus_um
        Of each image in µm, above 0 is underfocus, shape (tilts,).
    name
        The tomogram's name.
    tilt_axis
        ``"y"`` or ``"x"``.

    Raises
    ------
    InputError
        When the lengths differ.
    """

    images: NDArray[np.floating]
    pixel_size: float
    tilt_angles: NDArray[np.float64]
    exposure: NDArray[np.float64]
    defocus_um: NDArray[np.float64]
    name: str
    tilt_axis: TiltAxis = "y"

    def __post_init__(self) -> None:
        lengths = {len(self.images), len(self.tilt_angles), len(self.exposure), len(self.defocus_um)}
        if self.images.ndim != 3 or len(lengths) != 1:
            raise InputError(
                f"expected one image, angle, exposure and defocus a tilt, got images of shape {self.images.shape}, "
                f"{len(self.tilt_angles)} angles, {len(self.exposure)} exposures and {len(self.defocus_um)} defoci"
            )

    def __len__(self) -> int:
        return len(self.images)
