"""What an exposure does: radiation damage, the camera's transfer, the electrons' noise, and the order of the tilts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TiltScheme = Literal["dose_symmetric", "bidirectional", "continuous"]

MEAN_FREE_PATH = 3100.0
"""Å an electron of 300 kV goes through vitreous ice before it loses energy (Rice et al. 2018, J Struct Biol 204:38)."""


def acquisition_order(tilt_angles: Sequence[float], scheme: TiltScheme) -> NDArray[np.int64]:
    """When each image was taken, counted from 0.

    Parameters
    ----------
    tilt_angles
        In degrees, in any order.
    scheme
        ``"dose_symmetric"`` from the middle outwards, sides in turn (Hagen et al. 2017, J Struct Biol 197:191);
        ``"bidirectional"`` from the middle to the highest tilt, then from the middle to the lowest;
        ``"continuous"`` from the lowest to the highest.

    Examples
    --------
    >>> acquisition_order([-6, -3, 0, 3, 6], "dose_symmetric").tolist()
    [4, 2, 0, 1, 3]
    >>> acquisition_order([-6, -3, 0, 3, 6], "bidirectional").tolist()
    [4, 3, 0, 1, 2]
    """
    angles = np.asarray(tilt_angles, dtype=np.float64)
    middle = angles[np.argmin(np.abs(angles))]
    away = np.abs(angles - middle)
    keys = {
        "dose_symmetric": (angles < middle, away),
        "bidirectional": (away, angles < middle),
        "continuous": (angles,),
    }[scheme]
    order = np.empty(len(angles), dtype=np.int64)
    order[np.lexsort(keys)] = np.arange(len(angles))
    return order


def critical_exposure(frequency: NDArray[np.floating]) -> NDArray[np.floating]:
    """Exposure in e/Å² after which a frequency (1/Å) has lost 1/e of its power, at 300 kV.

    0.245 k^−1.665 + 2.81, as measured by Grant and Grigorieff 2015, eLife 4:e06980.
    """
    return 0.245 * np.maximum(frequency, 1e-6) ** -1.665 + 2.81


def damage(frequency: NDArray[np.floating], exposure: float | NDArray[np.floating]) -> NDArray[np.float32]:
    """Amplitude that radiation has left of each frequency (1/Å) after an exposure in e/Å².

    Examples
    --------
    >>> round(float(damage(np.array([1 / 20]), 100.0)[0]), 2)  # at 20 Å
    0.28
    """
    return np.exp(-0.5 * exposure / critical_exposure(frequency)).astype(np.float32)


def camera_transfer(frequency: NDArray[np.floating], pixel_size: float, at_nyquist: float) -> NDArray[np.float32]:
    """Modulation transfer of a camera, modelled as a Gaussian that falls to ``at_nyquist`` at 1 / (2 pixel_size).

    Parameters
    ----------
    frequency
        1/Å.
    pixel_size
        The camera's pixel at the specimen, in Å.
    at_nyquist
        Above 0, at most 1.
    """
    return np.exp(np.log(at_nyquist) * (frequency * 2 * pixel_size) ** 2).astype(np.float32)


def relative_noise(tilt_angles: Sequence[float], thickness: float) -> NDArray[np.float64]:
    """Noise of each image against an untilted one: fewer electrons come through a longer way (Lambert and Beer).

    Parameters
    ----------
    tilt_angles
        In degrees.
    thickness
        Of the ice, in Å.

    Examples
    --------
    >>> relative_noise([0, 60], 1500.0).round(2).tolist()
    [1.0, 1.27]
    """
    slope = np.cos(np.radians(np.asarray(tilt_angles, dtype=np.float64)))
    longer = 1 / np.maximum(slope, 0.1) - 1  # beyond 84° the specimen's edge is seen
    return np.exp(thickness * longer / (2 * MEAN_FREE_PATH))
