"""The missing wedge: which part of Fourier space a single-axis tilt series measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError

TiltAxis = Literal["x", "y"]


@dataclass(frozen=True)
class MissingWedge:
    """The measured tilt range of a single-axis tilt series; the beam is z.

    A positive tilt turns the specimen right-handed about the positive tilt axis, so that with the tilt axis y the
    projection at tilt t measures the plane kz = kx tan t. A Fourier coefficient is measured when the tilt that
    would measure it lies in the range.

    Parameters
    ----------
    tilt_min, tilt_max
        Measured range in degrees, -90 <= tilt_min < tilt_max <= 90.
    tilt_axis
        ``"y"`` (default) or ``"x"``.

    Raises
    ------
    InputError
        When the range is empty or exceeds ±90°, or the axis is unknown.

    Examples
    --------
    >>> wedge = MissingWedge(-60, 60)
    >>> round(wedge.measured_fraction, 3)
    0.667
    >>> mask = wedge.mask((32, 32, 32))  # layout of numpy.fft.rfftn
    >>> mask.shape, bool(mask[0, 0, 1]), bool(mask[1, 0, 0])
    ((32, 32, 17), True, False)
    """

    tilt_min: float = -60.0
    tilt_max: float = 60.0
    tilt_axis: TiltAxis = "y"

    def __post_init__(self) -> None:
        if not -90 <= self.tilt_min < self.tilt_max <= 90:
            raise InputError(
                f"expected a tilt range -90 <= min < max <= 90 degrees, got {self.tilt_min} to {self.tilt_max}; "
                "give the measured range, such as -60 60"
            )
        if self.tilt_axis not in ("x", "y"):
            raise InputError(f"expected tilt axis 'x' or 'y', got {self.tilt_axis!r}")

    @property
    def measured_fraction(self) -> float:
        """Measured fraction of the sphere of Fourier space."""
        return (self.tilt_max - self.tilt_min) / 180.0

    @property
    def is_symmetric(self) -> bool:
        """Whether the range is as wide on both sides, so that 180° turns about z and x keep it."""
        return bool(np.isclose(self.tilt_min, -self.tilt_max))

    def contains(
        self, kz: NDArray[np.floating], ky: NDArray[np.floating], kx: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """Whether the spatial frequencies (any one unit, broadcast together) were measured."""
        along, across = (kx, kz) if self.tilt_axis == "y" else (ky, -kz)
        # k and -k are one measurement (Friedel), so the sign of `along` is turned positive
        tilt = np.degrees(np.arctan2(across * np.where(along < 0, -1.0, 1.0), np.abs(along)))
        inside = (tilt >= self.tilt_min - 1e-6) & (tilt <= self.tilt_max + 1e-6)
        return np.broadcast_to(inside | ((along == 0) & (across == 0)), np.broadcast(kz, ky, kx).shape)

    def mask(self, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Measured coefficients of ``numpy.fft.rfftn`` of a zyx volume of this shape.

        Parameters
        ----------
        shape
            Volume shape zyx in voxels; voxels are cubic.

        Returns
        -------
        NDArray[bool], shape (nz, ny, nx // 2 + 1)
        """
        nz, ny, nx = shape
        kz, ky, kx = np.meshgrid(
            np.fft.fftfreq(nz), np.fft.fftfreq(ny), np.fft.rfftfreq(nx), indexing="ij", sparse=True
        )
        return np.ascontiguousarray(self.contains(kz, ky, kx))
